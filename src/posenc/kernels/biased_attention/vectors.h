// Vectors of floats for any instruction set, and the one product of matrices that attention is made of.
//
// Everything here is written with the vector types of GCC and Clang and inlined into functions that name their
// instruction set, so that one text serves AVX-512, AVX2 and whatever else a machine has.

#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#ifdef __x86_64__
#include <immintrin.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace posenc_attention {

constexpr float INFINITE = std::numeric_limits<float>::infinity();
// exp(x) is taken as 0 below this, where it would soon be subnormal: 2^-126 is exp(-87.34).
constexpr float FLOOR = -87.0f;

// Subnormal numbers cost an Intel core some hundred cycles each. Within the lifetime of this object they count as zero
// on this thread; afterwards the thread is as it was.
class FlushSubnormals {
 public:
#if defined(__x86_64__)
  FlushSubnormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | 0x8040u); }
  ~FlushSubnormals() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#elif defined(__aarch64__)
  FlushSubnormals() {
    __asm__ __volatile__("mrs %0, fpcr" : "=r"(saved_));
    __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_ | (uint64_t(1) << 24)));
  }
  ~FlushSubnormals() { __asm__ __volatile__("msr fpcr, %0" : : "r"(saved_)); }

 private:
  uint64_t saved_;
#endif
  FlushSubnormals(const FlushSubnormals&) = delete;
  FlushSubnormals& operator=(const FlushSubnormals&) = delete;
};

template <int BYTES>
struct Vectors;
#define VECTORS(bytes)                                      \
  template <>                                               \
  struct Vectors<bytes> {                                   \
    typedef float F __attribute__((vector_size(bytes)));    \
    typedef int32_t I __attribute__((vector_size(bytes)));  \
    typedef uint32_t U __attribute__((vector_size(bytes))); \
    typedef uint16_t H __attribute__((vector_size(bytes / 2))); \
    typedef double P __attribute__((vector_size(bytes)));   \
  };
VECTORS(16)
VECTORS(32)
VECTORS(64)
#undef VECTORS

template <int BYTES>
struct Lanes {
  using F = typename Vectors<BYTES>::F;
  using I = typename Vectors<BYTES>::I;
  using P = typename Vectors<BYTES>::P;            // pairs of floats, half as many
  static constexpr int W = BYTES / 4;              // floats in a vector
  static constexpr int NV = BYTES == 64 ? 4 : 2;   // vectors of a row of a tile: as many as the registers hold
  static constexpr int MR = 6;                     // rows of a tile
  static constexpr int NR = NV * W;                // columns of a tile

  static INLINE F load(const float* from) {
    F x;
    std::memcpy(&x, from, sizeof(x));
    return x;
  }
  static INLINE F load(const uint16_t* from) {  // of bfloat16
    typename Vectors<BYTES>::H half;
    std::memcpy(&half, from, sizeof(half));
    const typename Vectors<BYTES>::U bits = __builtin_convertvector(half, typename Vectors<BYTES>::U) << 16;
    F x;
    std::memcpy(&x, &bits, sizeof(x));
    return x;
  }
  static INLINE void store(float* to, F x) { std::memcpy(to, &x, sizeof(x)); }
  static INLINE F all(float x) { return x - F{}; }
  static INLINE F max(F a, F b) { return a > b ? a : b; }
  static INLINE bool any_above(F a, F b) {  // true for NaN in either
    I above = ~(a <= b);
    int32_t found = 0;
    for (int i = 0; i < W; ++i) found |= above[i];
    return found != 0;
  }

  // exp(x) for x <= 0, within about one unit in the last place; exactly 0 below FLOOR; NaN for NaN.
  static INLINE F exp(F x) {
    const F shifted = x * 1.44269504088896341f + 12582912.0f;  // 1.5 * 2^23: the sum is rounded to a whole number
    const F n = shifted - 12582912.0f;
    F r = n * -0.693359375f + x;
    r = n * 2.12194440e-4f + r;
    F y = r * 1.9875691500e-4f + 1.3981999507e-3f;
    y = y * r + 8.3334519073e-3f;
    y = y * r + 4.1665795894e-2f;
    y = y * r + 1.6666665459e-1f;
    y = y * r + 5.0000001201e-1f;
    y = y * (r * r) + r + 1.0f;
    I bits;
    std::memcpy(&bits, &shifted, sizeof(bits));
    const I power = (bits - (0x4b400000 - 127)) << 23;
    F scale;
    std::memcpy(&scale, &power, sizeof(scale));
    return x < FLOOR ? F{} : y * scale;
  }
};

// The sums of W vectors as one vector, by halves: at each step two vectors become one of twice as many parts.
template <class L>
INLINE typename L::F sum_each(typename L::F (&x)[L::W]) {
  using I = typename L::I;
#pragma GCC unroll 4
  for (int part = L::W; part > 1; part /= 2) {  // each vector is made of W / part sums to be, of `part` numbers each
    I left, right;
#pragma GCC unroll 16
    for (int i = 0; i < L::W; ++i) {
      left[i] = i / (part / 2) * part + i % (part / 2);  // counts on into the second vector
      right[i] = left[i] + part / 2;
    }
#pragma GCC unroll 16
    for (int i = 0; i < part / 2; ++i) {
      x[i] = __builtin_shuffle(x[2 * i], x[2 * i + 1], left) + __builtin_shuffle(x[2 * i], x[2 * i + 1], right);
    }
  }
  return x[0];
}

template <class L>
INLINE float sum(typename L::F x) {
  float total = 0.0f;
  for (int i = 0; i < L::W; ++i) total += x[i];
  return total;
}

// C (rows x NV vectors) += A (rows x depth) B (depth x NV vectors), with C in registers.
template <class L, int ROWS, int NV>
INLINE void tile(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, int64_t depth,
                 typename L::F (&c)[ROWS][NV]) {
  using F = typename L::F;
  for (int64_t k = 0; k < depth; ++k) {
    F right[NV];
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) right[n] = L::load(b + k * b_row + n * L::W);
#pragma GCC unroll 8
    for (int m = 0; m < ROWS; ++m) {
      const float left = a[m * a_row + k * a_col];
#pragma GCC unroll 8
      for (int n = 0; n < NV; ++n) c[m][n] += left * right[n];
    }
  }
}

template <class L, int ROWS, int NV>
INLINE void add_tile(const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row, int64_t depth,
                     float* c, int64_t c_row) {
  typename L::F sums[ROWS][NV] = {};  // not C: thousands of small numbers, each added to a large one, would be rounded off
  tile<L, ROWS, NV>(a, a_row, a_col, b, b_row, depth, sums);
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) {
      float* const to = c + m * c_row + n * L::W;
      L::store(to, L::load(to) + sums[m][n]);
    }
  }
}

template <class L, int NV>
INLINE void add_rows(int64_t rows, const float* a, int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                     int64_t depth, float* c, int64_t c_row) {
  int64_t m = 0;
  for (; m + L::MR <= rows; m += L::MR) {
    add_tile<L, L::MR, NV>(a + m * a_row, a_row, a_col, b, b_row, depth, c + m * c_row, c_row);
  }
  const float* const rest = a + m * a_row;
  float* const to = c + m * c_row;
  switch (rows - m) {
    case 5:
      return add_tile<L, 5, NV>(rest, a_row, a_col, b, b_row, depth, to, c_row);
    case 4:
      return add_tile<L, 4, NV>(rest, a_row, a_col, b, b_row, depth, to, c_row);
    case 3:
      return add_tile<L, 3, NV>(rest, a_row, a_col, b, b_row, depth, to, c_row);
    case 2:
      return add_tile<L, 2, NV>(rest, a_row, a_col, b, b_row, depth, to, c_row);
    case 1:
      return add_tile<L, 1, NV>(rest, a_row, a_col, b, b_row, depth, to, c_row);
    default:
      return;
  }
}

// C += A B for any number of rows and a number of columns that is a multiple of a vector. Large: the bodies in cpu.cpp
// call one copy for each instruction set, L::add_product.
template <class L>
INLINE void add_inlined(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row, int64_t a_col,
                        const float* b, int64_t b_row, float* c, int64_t c_row) {
  int64_t n = 0;
  for (; n + L::NR <= columns; n += L::NR) {
    add_rows<L, L::NV>(rows, a, a_row, a_col, b + n, b_row, depth, c + n, c_row);
  }
  if constexpr (L::NV == 4) {
    if (n + 2 * L::W <= columns) {
      add_rows<L, 2>(rows, a, a_row, a_col, b + n, b_row, depth, c + n, c_row);
      n += 2 * L::W;
    }
  }
  if (n < columns) add_rows<L, 1>(rows, a, a_row, a_col, b + n, b_row, depth, c + n, c_row);
}

}  // namespace posenc_attention

// The rotation of queries and keys on CPU: one pass over memory, against PyTorch's stable ABI.
//
// posenc::_rotate and posenc::_rotate_ are declared in op.py, which also says what the arguments mean. Every check is
// made here, before the first read or write of an element, because the operators can be called from anywhere.
//
// Arithmetic: a cos - b sin and a sin + b cos in float (double for double), each product and each sum rounded by itself
// (compile with -ffp-contract=off), one rounding on the way out. So the result is bit for bit that of the eager form,
// whatever the instruction set.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <tuple>
#include <type_traits>

#ifdef __linux__
#include <sys/mman.h>
#endif
#ifdef __x86_64__
#include <immintrin.h>
#endif

// Whether compiler and assembler know AVX512_BF16.
#if __has_include(<avx512bf16intrin.h>)
#define HAS_BF16_INSTRUCTIONS 1
#else
#define HAS_BF16_INSTRUCTIONS 0
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// ---------------------------------------------------------------------------------------------------------------------
// Elements. Conversions are written without branches, so that the loops below vectorise on any instruction set.

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class To, class From>
INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

INLINE double load(double x) { return x; }
INLINE float load(float x) { return x; }
INLINE float load(BFloat16 x) { return bits_as<float>(uint32_t(x.bits) << 16); }
INLINE float load(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23), special = (magnitude << 13) | 0x7f800000u;
  const uint32_t subnormal = bits_as<uint32_t>(float(int32_t(magnitude)) * 0x1p-24f);
  return bits_as<float>(sign | (magnitude >= 0x7c00u ? special : magnitude < 0x400u ? subnormal : normal));
}

INLINE void store(double* to, double x) { *to = x; }
INLINE void store(float* to, float x) { *to = x; }
INLINE void store(BFloat16* to, float x) {  // to nearest, ties to even
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  to->bits = uint16_t(x != x ? 0x7fc0u : rounded);
}
INLINE void store(Half* to, float x) {
  const uint32_t u = bits_as<uint32_t>(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  const uint32_t shifted = magnitude - (112u << 23);
  const uint32_t normal = (shifted + 0xfffu + ((shifted >> 13) & 1u)) >> 13;
  // 0.5 has a last place of 2^-24, the step of subnormal halves: adding it rounds to that step.
  const uint32_t subnormal = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - bits_as<uint32_t>(0.5f);
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  to->bits = uint16_t(sign | (magnitude >= 0x477ff000u ? special : finite));
}

template <class T>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};

// ---------------------------------------------------------------------------------------------------------------------
// The work. Strides count elements; an axis is batch, head, token or channel, whatever its place in the tensor.

enum Axis { BATCH, HEAD, TOKEN, CHANNEL };

struct Operand {  // q or k
  const void* in;
  void* out;
  std::array<int64_t, 4> size, in_stride, out_stride;
};

struct Table {  // cos or sin
  const void* data;
  int64_t batch_stride, row_stride;
};

struct Positions {  // the row of the table for each token: data[batch, token], or offset + token where data is null
  const void* data;
  bool wide;  // int64 rather than int32
  int64_t batch_stride, token_stride, offset;

  INLINE int64_t row(int64_t batch, int64_t token) const {
    if (data == nullptr) return offset + token;
    const int64_t i = batch * batch_stride + token * token_stride;
    return wide ? static_cast<const int64_t*>(data)[i] : static_cast<const int32_t*>(data)[i];
  }
};

struct Job {
  std::array<Operand, 2> operands;
  Table cos, sin;
  Positions positions;
  int64_t start, pairs, tokens;
  bool inverse, in_place;
};

// Tokens whose rows of the table stay in the second cache (512 KiB for 64 pairs in float) while all heads pass.
constexpr int64_t TILE = 1024;
// Heads that share a row of the table while it is in registers. Each is a stream of its own in memory, or two out of
// place, and strides of heads are often powers of two, which fall on the same sets of caches of eight ways.
constexpr int64_t GROUP = 4;
// How many rows ahead are asked for. The processor foresees one stream of whole rows, but not some heads by turns, and
// least of all slices of rows.
constexpr int64_t AHEAD = 32;

template <class T>
struct Slab {  // a tile of tokens in a group of heads, of one row of the batch
  using Arithmetic = typename ArithmeticOf<T>::type;
  const T* in;  // token 0 of the first of the heads
  T* out;
  int64_t in_head, in_token, in_channel, out_head, out_token, out_channel;
  int64_t batch, first, last, heads, start, pairs, channels;
  const Arithmetic *cos, *sin;
  int64_t cos_row, sin_row;
  Positions positions;
  bool inverse, in_place;
};

template <class T>
struct Rows {  // the slices of one token in the heads of a slab, which turn by the same angles
  const T* in;
  T* out;
  int64_t heads, in_head, out_head, pairs;
  const typename ArithmeticOf<T>::type *cos, *sin;
  int64_t later;  // from each element to the one that is asked for ahead of time, or 0
  typename ArithmeticOf<T>::type sign;
};

template <class T>
__attribute__((noinline)) void copy_rest(const Slab<T>& slab, int64_t token) {  // the channels outside the slice
  const int64_t end = slab.start + 2 * slab.pairs;
  for (int64_t head = 0; head < slab.heads; ++head) {
    const T* const x = slab.in + head * slab.in_head + token * slab.in_token;
    T* const y = slab.out + head * slab.out_head + token * slab.out_token;
    if (slab.in_channel == 1 && slab.out_channel == 1) {
      std::memcpy(y, x, size_t(slab.start) * sizeof(T));
      std::memcpy(y + end, x + end, size_t(slab.channels - end) * sizeof(T));
    } else {
      for (int64_t c = 0; c < slab.start; ++c) y[c * slab.out_channel] = x[c * slab.in_channel];
      for (int64_t c = end; c < slab.channels; ++c) y[c * slab.out_channel] = x[c * slab.in_channel];
    }
  }
}

// Goes through the tokens of a slab: while (walk.next()) turn walk.rows().
template <class T>
struct Walk {
  const Slab<T>& given;
  const Slab<T> slab;  // a copy, which no store to an element can be meant to change
  const bool has_rest;
  const int64_t ahead;
  int64_t token;

  INLINE explicit Walk(const Slab<T>& slab_)
      : given(slab_),
        slab(slab_),
        has_rest(!slab.in_place && 2 * slab.pairs < slab.channels),
        ahead(std::max<int64_t>(1, AHEAD / std::max<int64_t>(1, slab.heads))),
        token(slab.first - 1) {}

  INLINE bool next() {
    if (++token >= slab.last) return false;
    if (has_rest) copy_rest(given, token);
    return true;
  }

  INLINE Rows<T> rows() const {
    const int64_t row = slab.positions.row(slab.batch, token);
    return {slab.in + token * slab.in_token + slab.start * slab.in_channel,
            slab.out + token * slab.out_token + slab.start * slab.out_channel,
            slab.heads,
            slab.in_head,
            slab.out_head,
            slab.pairs,
            slab.cos + row * slab.cos_row,
            slab.sin + row * slab.sin_row,
            token + ahead < slab.last ? ahead * slab.in_token : 0,
            typename Slab<T>::Arithmetic(slab.inverse ? -1 : 1)};
  }
};

// The pairs from begin on. The strides, of channels, are constants where they are 1.
template <class T, bool interleaved>
INLINE void rotate_pairs(const Rows<T>& rows, int64_t begin, int64_t x_stride, int64_t y_stride) {
  const int64_t step = interleaved ? 2 : 1, partner = interleaved ? 1 : rows.pairs, end = rows.pairs;
  const auto *const cos = rows.cos, *const sin = rows.sin;
  const auto sign = rows.sign;
  for (int64_t head = 0; head < rows.heads; ++head) {
    const T* const x = rows.in + head * rows.in_head;
    T* const y = rows.out + head * rows.out_head;
    if (x_stride == 1) {
      for (int64_t c = step * begin; c < 2 * end; c += 64 / sizeof(T)) __builtin_prefetch(x + c + rows.later);
    }
#pragma GCC ivdep  // x and y are the same memory or disjoint, never shifted against each other
    for (int64_t c = begin; c < end; ++c) {
      const auto a = load(x[step * c * x_stride]), b = load(x[(step * c + partner) * x_stride]);
      const auto cosine = cos[c], sine = sign * sin[c];
      store(&y[step * c * y_stride], a * cosine - b * sine);
      store(&y[(step * c + partner) * y_stride], a * sine + b * cosine);
    }
  }
}

// Channels with gaps between them are rare and bound by memory: one compiled form serves all instruction sets.
template <class T, bool interleaved>
__attribute__((noinline, optimize("no-tree-vectorize"))) void rotate_gapped(const Slab<T>& slab) {
  for (Walk<T> walk(slab); walk.next();) {
    rotate_pairs<T, interleaved>(walk.rows(), 0, slab.in_channel, slab.out_channel);
  }
}

template <class T, bool interleaved>
INLINE void rotate_dense(const Slab<T>& slab) {
  for (Walk<T> walk(slab); walk.next();) rotate_pairs<T, interleaved>(walk.rows(), 0, 1, 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// Dense rows, the same source compiled for several instruction sets; the machine's best is chosen once, at load time.

enum class Level : int { PORTABLE, AVX2, AVX512, AVX512_BF16 };

template <Level level, class T, bool interleaved>
struct Compiled {
  static void rotate(const Slab<T>& slab) { rotate_dense<T, interleaved>(slab); }
};

#if defined(__x86_64__)
#define TARGET_AVX512 __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512")))

template <class T, bool interleaved>
struct Compiled<Level::AVX2, T, interleaved> {
  __attribute__((target("avx2"))) static void rotate(const Slab<T>& slab) { rotate_dense<T, interleaved>(slab); }
};

// Two bytes a number: bound by the conversions, of which a compiler makes a dozen instructions each. These are by hand,
// for blocks of 32 words, which are widened to two vectors.

struct Two {
  __m512 first, second;
};

struct Order {
  alignas(64) uint16_t word[32];
};
template <class Rule>
constexpr Order order(Rule rule) {
  Order made{};
  for (int i = 0; i < 32; ++i) made.word[i] = uint16_t(rule(i));
  return made;
}
constexpr Order ODD = order([](int i) { return 2 * i + 1; });
constexpr Order EVEN_THEN_ODD = order([](int i) { return i < 16 ? 2 * i : 2 * i - 31; });
constexpr Order BY_TURNS = order([](int i) { return i / 2 + 16 * (i % 2); });
constexpr Order TWICE = order([](int i) { return i / 2; });
constexpr Order TWICE_FROM_16 = order([](int i) { return 16 + i / 2; });

TARGET_AVX512 INLINE __m512i in_order(const Order& order) { return _mm512_load_si512(order.word); }

// Words 0 to 15, and 16 to 31.
TARGET_AVX512 INLINE Two widen(__m512i words, BFloat16) {
  constexpr __mmask32 UPPER = 0xaaaaaaaa;  // of each float, whose lower half is zero
  return {_mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(UPPER, in_order(TWICE), words)),
          _mm512_castsi512_ps(_mm512_maskz_permutexvar_epi16(UPPER, in_order(TWICE_FROM_16), words))};
}
TARGET_AVX512 INLINE Two widen(__m512i words, Half) {
  return {_mm512_cvtph_ps(_mm512_castsi512_si256(words)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64(words, 1))};
}

// Even words, and odd.
TARGET_AVX512 INLINE Two widen_by_turns(__m512i words, BFloat16) {
  return {_mm512_castsi512_ps(_mm512_slli_epi32(words, 16)),
          _mm512_castsi512_ps(_mm512_and_si512(words, _mm512_set1_epi32(int(0xffff0000))))};
}
TARGET_AVX512 INLINE Two widen_by_turns(__m512i words, Half) {
  return widen(_mm512_permutexvar_epi16(in_order(EVEN_THEN_ODD), words), Half());
}

// store() of BFloat16, the result in the upper half.
TARGET_AVX512 INLINE __m512i round_to_bfloat16(__m512 x) {
  const __m512i u = _mm512_castps_si512(x);
  const __m512i odd = _mm512_and_si512(_mm512_srli_epi32(u, 16), _mm512_set1_epi32(1));
  const __m512i rounded = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), odd);
  return _mm512_mask_mov_epi32(rounded, _mm512_cmp_ps_mask(x, x, _CMP_UNORD_Q), _mm512_set1_epi32(0x7fc00000));
}

template <Level level>
TARGET_AVX512 INLINE __m512i narrow(Two x, BFloat16) {
#if HAS_BF16_INSTRUCTIONS
  if (level == Level::AVX512_BF16) {
    __m512i words;  // the intrinsic would ask for a target of its own, here and in all that this is inlined into
    asm("vcvtne2ps2bf16 %2, %1, %0" : "=v"(words) : "v"(x.second), "v"(x.first));
    return words;
  }
#endif
  return _mm512_permutex2var_epi16(round_to_bfloat16(x.first), in_order(ODD), round_to_bfloat16(x.second));
}
template <Level>
TARGET_AVX512 INLINE __m512i narrow(Two x, Half) {
  constexpr int NEAREST = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
  return _mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(x.first, NEAREST)),
                            _mm512_cvtps_ph(x.second, NEAREST), 1);
}

TARGET_AVX512 INLINE bool any_subnormal(Two x) {
  constexpr int SUBNORMAL = 0x20;
  return (_mm512_fpclass_ps_mask(x.first, SUBNORMAL) | _mm512_fpclass_ps_mask(x.second, SUBNORMAL)) != 0;
}

TARGET_AVX512 INLINE __m512 turned_a(__m512 a, __m512 b, __m512 cos, __m512 sin) {
  return _mm512_sub_ps(_mm512_mul_ps(a, cos), _mm512_mul_ps(b, sin));
}
TARGET_AVX512 INLINE __m512 turned_b(__m512 a, __m512 b, __m512 cos, __m512 sin) {
  return _mm512_add_ps(_mm512_mul_ps(a, sin), _mm512_mul_ps(b, cos));
}

// The two rare ways on are calls, and get a copy of the rows, so that the loop below keeps its registers.
template <class T, bool interleaved>
TARGET_AVX512 __attribute__((noinline, cold)) void rotate_subnormal_words(const Rows<T>& rows, int64_t c, int64_t head);

template <class T, bool interleaved>
TARGET_AVX512 __attribute__((noinline)) void rotate_last_pairs(const Rows<T>& rows, int64_t c) {
  rotate_pairs<T, interleaved>(rows, c, 1, 1);
}

template <Level level, class T, bool interleaved>
TARGET_AVX512 INLINE void rotate_words(const Rows<T>& rows, int64_t c = 0, int64_t head = 0) {
  const __m512 sign = _mm512_set1_ps(rows.sign);
  for (; c + 32 <= rows.pairs; c += 32, head = 0) {
    const Two cos = {_mm512_loadu_ps(rows.cos + c), _mm512_loadu_ps(rows.cos + c + 16)};
    const Two sin = {_mm512_mul_ps(sign, _mm512_loadu_ps(rows.sin + c)),
                     _mm512_mul_ps(sign, _mm512_loadu_ps(rows.sin + c + 16))};
    const int64_t at = interleaved ? 2 * c : c, next = interleaved ? 32 : rows.pairs;
    for (; head < rows.heads; ++head) {
      const T* const x = rows.in + head * rows.in_head + at;
      T* const y = rows.out + head * rows.out_head + at;
      __builtin_prefetch(x + rows.later);
      __builtin_prefetch(x + next + rows.later);
      const __m512i x0 = _mm512_loadu_si512(x), x1 = _mm512_loadu_si512(x + next);
      Two y0, y1;
      if (interleaved) {
        const Two p = widen_by_turns(x0, T()), q = widen_by_turns(x1, T());
        y0 = {turned_a(p.first, p.second, cos.first, sin.first), turned_b(p.first, p.second, cos.first, sin.first)};
        y1 = {turned_a(q.first, q.second, cos.second, sin.second), turned_b(q.first, q.second, cos.second, sin.second)};
      } else {
        const Two a = widen(x0, T()), b = widen(x1, T());
        y0 = {turned_a(a.first, b.first, cos.first, sin.first), turned_a(a.second, b.second, cos.second, sin.second)};
        y1 = {turned_b(a.first, b.first, cos.first, sin.first), turned_b(a.second, b.second, cos.second, sin.second)};
      }
      __m512i words0 = narrow<level>(y0, T()), words1 = narrow<level>(y1, T());
      // Narrowing to BF16 the processor takes subnormal numbers for zero. So from the first one on these rows go the long
      // way, and no bit depends on the instruction set.
      if (level == Level::AVX512_BF16 && __builtin_expect(any_subnormal(y0) | any_subnormal(y1), false)) {
        const Rows<T> copy = rows;
        return rotate_subnormal_words<T, interleaved>(copy, c, head);
      }
      if (interleaved) {
        words0 = _mm512_permutexvar_epi16(in_order(BY_TURNS), words0);
        words1 = _mm512_permutexvar_epi16(in_order(BY_TURNS), words1);
      }
      _mm512_storeu_si512(y, words0);
      _mm512_storeu_si512(y + next, words1);
    }
  }
  if (c < rows.pairs) {
    const Rows<T> copy = rows;
    rotate_last_pairs<T, interleaved>(copy, c);
  }
}

template <class T, bool interleaved>
void rotate_subnormal_words(const Rows<T>& rows, int64_t c, int64_t head) {
  rotate_words<Level::AVX512, T, interleaved>(rows, c, head);
}

template <class T, bool interleaved>
struct Compiled<Level::AVX512, T, interleaved> {
  TARGET_AVX512 static void rotate(const Slab<T>& slab) {
    if constexpr (sizeof(T) == 2) {
      for (Walk<T> walk(slab); walk.next();) rotate_words<Level::AVX512, T, interleaved>(walk.rows());
    } else {
      rotate_dense<T, interleaved>(slab);
    }
  }
};
template <bool interleaved>
struct Compiled<Level::AVX512_BF16, BFloat16, interleaved> {
  TARGET_AVX512 static void rotate(const Slab<BFloat16>& slab) {
    for (Walk<BFloat16> walk(slab); walk.next();) {
      rotate_words<Level::AVX512_BF16, BFloat16, interleaved>(walk.rows());
    }
  }
};
#endif

Level best_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
#if HAS_BF16_INSTRUCTIONS
    if (__builtin_cpu_supports("avx512bf16")) return Level::AVX512_BF16;
#endif
    return Level::AVX512;
  }
  if (__builtin_cpu_supports("avx2")) return Level::AVX2;
#endif
  return Level::PORTABLE;
}

Level level = best_level();

template <class T>
using Rotate = void (*)(const Slab<T>&);

template <class T, bool interleaved>
Rotate<T> compiled() {
  switch (level) {
    case Level::AVX512_BF16:
      if constexpr (std::is_same_v<T, BFloat16>) return Compiled<Level::AVX512_BF16, T, interleaved>::rotate;
      [[fallthrough]];
    case Level::AVX512:
      return Compiled<Level::AVX512, T, interleaved>::rotate;
    case Level::AVX2:
      return Compiled<Level::AVX2, T, interleaved>::rotate;
    default:
      return Compiled<Level::PORTABLE, T, interleaved>::rotate;
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Tokens: which rows share a row of the table, and in which order they are visited.

template <class T>
void rotate_tile(const Job& job, Rotate<T> dense, Rotate<T> gapped, const Operand& operand, int64_t batch, int64_t first,
                 int64_t last) {
  using Arithmetic = typename ArithmeticOf<T>::type;
  const auto &in = operand.in_stride, &out = operand.out_stride;
  const int64_t heads = operand.size[HEAD], group = in[HEAD] <= in[TOKEN] ? heads : GROUP;  // innermost: as they lie
  const Rotate<T> rotate = in[CHANNEL] == 1 && out[CHANNEL] == 1 ? dense : gapped;
  Slab<T> slab;
  slab.in_head = in[HEAD], slab.in_token = in[TOKEN], slab.in_channel = in[CHANNEL];
  slab.out_head = out[HEAD], slab.out_token = out[TOKEN], slab.out_channel = out[CHANNEL];
  slab.batch = batch, slab.first = first, slab.last = last;
  slab.start = job.start, slab.pairs = job.pairs, slab.channels = operand.size[CHANNEL];
  slab.cos = static_cast<const Arithmetic*>(job.cos.data) + batch * job.cos.batch_stride;
  slab.sin = static_cast<const Arithmetic*>(job.sin.data) + batch * job.sin.batch_stride;
  slab.cos_row = job.cos.row_stride, slab.sin_row = job.sin.row_stride;
  slab.positions = job.positions;
  slab.inverse = job.inverse, slab.in_place = job.in_place;
  for (int64_t head = 0; head < heads; head += group) {
    slab.in = static_cast<const T*>(operand.in) + batch * in[BATCH] + head * in[HEAD];
    slab.out = static_cast<T*>(operand.out) + batch * out[BATCH] + head * out[HEAD];
    slab.heads = std::min(group, heads - head);
    rotate(slab);
  }
}

// Tokens are counted through the batch: begin and end are batch * tokens + token.
template <class T, bool interleaved>
void rotate_tokens(const Job& job, int64_t begin, int64_t end) {
  const Rotate<T> dense = compiled<T, interleaved>(), gapped = rotate_gapped<T, interleaved>;
  while (begin < end) {
    const int64_t batch = begin / job.tokens, first = begin % job.tokens;
    const int64_t last = std::min({first + (end - begin), first + TILE, job.tokens});
    for (const Operand& operand : job.operands) rotate_tile<T>(job, dense, gapped, operand, batch, first, last);
    begin += last - first;
  }
}

using Body = void (*)(const Job&, int64_t, int64_t);

template <class T>
Body body(bool interleaved) {
  return interleaved ? rotate_tokens<T, true> : rotate_tokens<T, false>;
}

Body body_for(ScalarType dtype, bool interleaved) {
  switch (dtype) {
    case ScalarType::Double:
      return body<double>(interleaved);
    case ScalarType::Half:
      return body<Half>(interleaved);
    case ScalarType::BFloat16:
      return body<BFloat16>(interleaved);
    default:
      return body<float>(interleaved);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Checks. A refusal is std::invalid_argument, which Python sees as ValueError.

template <class... Parts>
[[noreturn]] __attribute__((noinline, cold)) void refuse(const Parts&... parts) {
  std::ostringstream message;
  message << "rotate: ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// A macro, so that the words are put together only when they are needed.
#define REQUIRE(condition, ...)              \
  do {                                       \
    if (!(condition)) refuse(__VA_ARGS__);   \
  } while (false)

// What there is to know about a tensor, asked for once: each question to PyTorch is a call across the ABI.
struct View {
  const char* name;
  int64_t dim;
  const int64_t *size, *stride;
  ScalarType dtype;
  bool on_cpu;

  View(const char* name_, const Tensor& tensor)
      : name(name_),
        dim(tensor.dim()),
        size(tensor.sizes().data()),
        stride(tensor.strides().data()),
        dtype(tensor.scalar_type()),
        on_cpu(tensor.is_cpu()) {}

  int64_t numel() const {  // of an operand: check_operands saw that it fits
    return size[0] * size[1] * size[2] * size[3];
  }

  // Whether sizes can be multiplied in 64 bits, those of empty and of expanded tensors too.
  bool is_countable() const {
    int64_t product = 16;  // bytes, with room to spare
    for (int64_t i = 0; i < dim; ++i) {
      if (__builtin_mul_overflow(product, std::max<int64_t>(size[i], 1), &product)) return false;
    }
    return true;
  }
};

std::ostream& operator<<(std::ostream& text, const View& view) {
  text << view.name << " of shape (";
  for (int64_t i = 0; i < view.dim; ++i) text << (i ? ", " : "") << view.size[i];
  return text << ")";
}

struct Arguments {
  View q, k, cos, sin;
  int64_t offset, start, token_dim;
  bool interleaved, inverse;

  int64_t batch() const { return q.size[0]; }
  int64_t tokens() const { return q.size[token_dim]; }
  int64_t rows() const { return cos.size[cos.dim - 2]; }
  int64_t pairs() const { return cos.size[cos.dim - 1]; }
};

void check_operands(const Arguments& args) {
  const View &q = args.q, &k = args.k;
  REQUIRE(args.token_dim == 1 || args.token_dim == 2, "got token_dim ", args.token_dim, ", expected 1 or 2.");
  REQUIRE(q.on_cpu && k.on_cpu, "got q or k on another device, expected all tensors on the CPU.");
  REQUIRE(q.dim == 4 && k.dim == 4, "got ", q, " and ", k, ", expected 4 dimensions.");
  REQUIRE(q.is_countable() && k.is_countable(), "got ", q, " and ", k, ", expected fewer than 2**59 elements.");
  REQUIRE(q.dtype == ScalarType::Float || q.dtype == ScalarType::Double || q.dtype == ScalarType::Half ||
              q.dtype == ScalarType::BFloat16,
          "got q of another dtype, expected float32, float64, float16 or bfloat16.");
  REQUIRE(k.dtype == q.dtype, "got q and k of different dtypes, expected the same; rotate them one by one.");
  REQUIRE(q.size[0] == k.size[0] && q.size[args.token_dim] == k.size[args.token_dim], "got ", q, " and ", k,
          ", expected the same batch and number of tokens; rotate them one by one.");
}

void check_tables(const Arguments& args) {
  const ScalarType arithmetic = args.q.dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const View* table : {&args.cos, &args.sin}) {
    REQUIRE(table->on_cpu, "got ", *table, " on another device, expected all tensors on the CPU.");
    REQUIRE(table->dim == 2 || table->dim == 3, "got ", *table, ", expected (rows, pairs) or (batch, rows, pairs).");
    REQUIRE(table->dtype == arithmetic, "got ", *table,
            " of the wrong dtype, expected float64 for float64 and float32 for all others.");
    REQUIRE(table->size[table->dim - 1] <= 1 || table->stride[table->dim - 1] == 1, "got ", *table,
            " with gaps between its channels, expected a last stride of 1; call contiguous() on it.");
    REQUIRE(table->dim == 2 || table->size[0] == 1 || table->size[0] == args.batch(), "got ", *table,
            ", expected a batch of 1 or ", args.batch(), ".");
  }
  REQUIRE(args.cos.dim == args.sin.dim && std::equal(args.cos.size, args.cos.size + args.cos.dim, args.sin.size), "got ",
          args.cos, " and ", args.sin, ", expected the same shape.");
  for (const View* x : {&args.q, &args.k}) {
    const int64_t channels = x->size[3];
    REQUIRE(args.start >= 0 && args.start <= channels && args.pairs() <= (channels - args.start) / 2, "got ",
            args.pairs(), " pairs of channels from channel ", args.start, " on, expected them to fit into ", *x, ".");
  }
}

Positions check_positions(const Arguments& args, const std::optional<Tensor>& tensor) {
  const int64_t batch = args.batch(), tokens = args.tokens(), rows = args.rows();
  if (!tensor.has_value()) {
    REQUIRE(args.offset >= 0 && tokens <= rows && args.offset <= rows - tokens, "got ", tokens, " tokens from row ",
            args.offset, " on of a table of ", rows, " rows, expected rows within it; make a longer table.");
    return {nullptr, false, 0, 0, args.offset};
  }
  const View view("positions", *tensor);
  REQUIRE(args.offset == 0, "got positions and offset ", args.offset, ", expected one of the two; add the offset.");
  REQUIRE(view.on_cpu, "got positions on another device, expected all tensors on the CPU.");
  const bool wide = view.dtype == ScalarType::Long;
  REQUIRE(wide || view.dtype == ScalarType::Int, "got positions of another dtype, expected int64 or int32.");
  REQUIRE((view.dim == 1 || (view.dim == 2 && (view.size[0] == batch || view.size[0] == 1))) &&
              view.size[view.dim - 1] == tokens,
          "got ", view, ", expected (", tokens, ") or (", batch, ", ", tokens, ").");
  const bool shared = view.dim == 1 || view.size[0] == 1;
  const Positions positions{tensor->const_data_ptr(), wide, shared ? 0 : view.stride[0], view.stride[view.dim - 1], 0};
  for (int64_t b = 0; b < (shared ? std::min<int64_t>(batch, 1) : batch); ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t row = positions.row(b, t);
      REQUIRE(row >= 0 && row < rows, "got position ", row, " at token ", t, ", expected 0 to ", rows - 1,
              ", the rows of the table; make a longer table.");
    }
  }
  return positions;
}

// No element of x shares memory with another: sorted by stride, each axis steps over all that lies within it.
bool elements_are_distinct(const View& x) {
  if (x.numel() == 0) return true;
  std::array<std::pair<int64_t, int64_t>, 4> axes;
  for (int64_t i = 0; i < 4; ++i) axes[i] = {x.stride[i], x.size[i]};
  std::sort(axes.begin(), axes.end());
  int64_t extent = 0;
  for (const auto& [stride, size] : axes) {
    if (size == 1) continue;
    if (stride <= extent) return false;
    extent += stride * (size - 1);
  }
  return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// The operators.

constexpr int64_t SERIAL_ELEMENTS = 1 << 15;  // below this a thread costs more than it brings (as in ATen)

void run(const Arguments& args, const Table& cos, const Table& sin, const Positions& positions,
         const std::array<Operand, 2>& operands, bool in_place) {
  const int64_t elements = args.q.numel() + args.k.numel(), batch = args.batch(), tokens = args.tokens();
  if (elements == 0) return;
  const Job job{operands, cos, sin, positions, args.start, args.pairs(), tokens, args.inverse, in_place};
  const Body body = body_for(args.q.dtype, args.interleaved);
  if (elements <= SERIAL_ELEMENTS) return body(job, 0, batch * tokens);
  const int64_t grain = std::max<int64_t>(1, SERIAL_ELEMENTS / (elements / (batch * tokens)));
  torch::stable::parallel_for(0, batch * tokens, grain, [&](int64_t begin, int64_t end) { body(job, begin, end); });
}

Table table(const View& view, const Tensor& tensor) {
  return {tensor.const_data_ptr(), view.dim == 3 && view.size[0] > 1 ? view.stride[0] : 0, view.stride[view.dim - 2]};
}

std::array<int64_t, 4> by_axis(const int64_t* values, int64_t token_dim) {
  return {values[0], values[3 - token_dim], values[token_dim], values[3]};
}

// A fresh tensor of x's shape, dense, in memory order (0, 1, 2, 3) or (0, 2, 1, 3), whichever x is in.
struct Fresh {
  std::array<int64_t, 4> stride;
  Tensor tensor;
  void* data;

  explicit Fresh(const View& x) : stride(dense(x)), tensor(allocate(x, stride)), data(tensor.mutable_data_ptr()) {
    const int64_t element = x.dtype == ScalarType::Double ? 8 : x.dtype == ScalarType::Float ? 4 : 2;
    use_huge_pages(data, x.numel() * element);
  }

  static std::array<int64_t, 4> dense(const View& x) {
    const int64_t first = x.size[1], second = x.size[2], channels = x.size[3];
    const bool swapped = x.stride[1] < x.stride[2];
    return {first * second * channels, swapped ? channels : second * channels, swapped ? first * channels : channels, 1};
  }

  static Tensor allocate(const View& x, const std::array<int64_t, 4>& stride) {
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4, x.size, stride.data(), shim_dtype(x.dtype),
                                                    aoti_torch_device_type_cpu(), 0, &handle));
    return Tensor(handle);
  }

  static int32_t shim_dtype(ScalarType dtype) {
    switch (dtype) {
      case ScalarType::Double:
        return aoti_torch_dtype_float64();
      case ScalarType::Half:
        return aoti_torch_dtype_float16();
      case ScalarType::BFloat16:
        return aoti_torch_dtype_bfloat16();
      default:
        return aoti_torch_dtype_float32();
    }
  }

  // Fresh memory costs a fault for each page: with pages of 2 MiB a large result costs less than its arithmetic.
  static void use_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t page = uintptr_t(2) << 20;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + uintptr_t(bytes)) / page * page;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: may be refused
#endif
  }
};

std::tuple<Tensor, Tensor> rotate(const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin,
                                  const std::optional<Tensor>& positions, int64_t offset, int64_t start,
                                  int64_t token_dim, bool interleaved, bool inverse) {
  const Arguments args{{"q", q}, {"k", k}, {"cos", cos}, {"sin", sin}, offset, start, token_dim, interleaved, inverse};
  check_operands(args);
  check_tables(args);
  const Positions checked = check_positions(args, positions);
  const Fresh q_out(args.q), k_out(args.k);
  const auto operand = [&](const View& view, const Tensor& tensor, const Fresh& out) {
    return Operand{tensor.const_data_ptr(), out.data, by_axis(view.size, token_dim), by_axis(view.stride, token_dim),
                   by_axis(out.stride.data(), token_dim)};
  };
  run(args, table(args.cos, cos), table(args.sin, sin), checked,
      {operand(args.q, q, q_out), operand(args.k, k, k_out)}, false);
  return {q_out.tensor, k_out.tensor};
}

void rotate_(const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin,
             const std::optional<Tensor>& positions, int64_t offset, int64_t start, int64_t token_dim, bool interleaved,
             bool inverse) {
  const Arguments args{{"q", q}, {"k", k}, {"cos", cos}, {"sin", sin}, offset, start, token_dim, interleaved, inverse};
  check_operands(args);
  check_tables(args);
  const Positions checked = check_positions(args, positions);
  for (const View* x : {&args.q, &args.k}) {
    REQUIRE(elements_are_distinct(*x), "got ", *x,
            " with elements that share memory (was it expanded?), expected distinct ones to write in place; clone() it.");
  }
  void *q_data = q.mutable_data_ptr(), *k_data = k.mutable_data_ptr();
  REQUIRE(q_data != k_data || args.q.numel() == 0 || args.k.numel() == 0,
          "got q and k in the same memory, expected two tensors to write in place; rotate one of them.");
  const auto operand = [&](const View& view, void* data) {
    const auto stride = by_axis(view.stride, token_dim);
    return Operand{data, data, by_axis(view.size, token_dim), stride, stride};
  };
  run(args, table(args.cos, cos), table(args.sin, sin), checked, {operand(args.q, q_data), operand(args.k, k_data)}, true);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(posenc, CPU, library) {
  library.impl("_rotate", TORCH_BOX(&rotate));
  library.impl("_rotate_", TORCH_BOX(&rotate_));
}

// Which instruction set is used, and a way for tests to ask for a lesser one; in the order of Level.
extern "C" __attribute__((visibility("default"))) int posenc_rotate_level() { return int(level); }
extern "C" __attribute__((visibility("default"))) int posenc_rotate_set_level(int wanted) {
  level = Level(std::clamp(wanted, 0, int(best_level())));
  return int(level);
}

// Dense rows, the same source compiled for several instruction sets; the machine's best is chosen once, at load time.

#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "rows.h"

#ifdef __x86_64__
#include <immintrin.h>
#endif

// Whether compiler and assembler know AVX512_BF16.
#if __has_include(<avx512bf16intrin.h>)
#define HAS_BF16_INSTRUCTIONS 1
#else
#define HAS_BF16_INSTRUCTIONS 0
#endif

namespace {

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

}  // namespace

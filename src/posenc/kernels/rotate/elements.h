// Elements: float, double, and the two half precisions by hand. Conversions are written without branches, so that the
// loops over them vectorise on any instruction set.

#pragma once

#include <cstdint>
#include <cstring>

#define INLINE inline __attribute__((always_inline))

namespace {

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

}  // namespace

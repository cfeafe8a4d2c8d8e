// One call of attention as the kernels see it: where the numbers lie, which pairs may meet, and what is added to them.

#pragma once

#include <atomic>
#include <vector>

#include "vectors.h"

namespace posenc_attention {

constexpr int64_t QUERIES = 64, KEYS = 128;  // of a tile: its scores take 32 KiB, and stay in the first or second cache
constexpr int64_t MOST_UNITS = 128;  // of a network: what is known of each in a tile lies on the stack

enum class Element { FLOAT, HALF, BFLOAT16 };

struct Operand {  // (batch, heads, tokens, channels), any strides, counted in elements
  const void* data = nullptr;
  Element element = Element::FLOAT;
  int64_t heads = 0, tokens = 0, channels = 0;
  int64_t stride[4] = {0, 0, 0, 0};
};

struct Problem {
  Operand q, k, v;
  int64_t batch, heads, q_len, k_len, offset;  // query t stands at key offset + t
  float scale;
  bool causal;
  int64_t window;                  // 0: none
  const float* table = nullptr;    // (heads, distances): table[h][zero + distance in tokens], or null
  int64_t table_row = 0, zero = 0;
  const void* mask = nullptr;      // (batch, heads, q_len, k_len): bool or float, any strides
  bool mask_is_float = false;
  int64_t mask_stride[4] = {0, 0, 0, 0};
  const int64_t* documents = nullptr;  // (batch, k_len)
  int64_t documents_row = 0;
  const float* sinks = nullptr;    // (heads)
  const double* fades = nullptr;   // (batch, heads, k_len), keys side by side: min(c[own key] - c[key], 0) is added
  int64_t fades_stride[2] = {0, 0};
  // If there are units, f(table[h][zero + distance] * factors[query]) is added, f(x) = sum of out * max(in * x + at, 0).
  const float* units = nullptr;    // (heads, units, 3): in, at, out
  int64_t unit_count = 0;
  const float* factors = nullptr;  // (q_len)
  const float* counted = nullptr;  // (batch, heads, q_len, counts): what is added at each count of a query; see counts.h
  // Or what the scaled queries are multiplied by to give it: (counts, q channels) for a query alone, and turned for many.
  const float* by_count = nullptr;
  int64_t counts = 0;
  bool skip = true;                // leave out tiles whose weights are proved to be 0
  // 0 times what is not finite is NaN, so a key that no query of a tile may see can spoil them all. Where a result is not
  // finite it is worked out again with care: what is hidden is set so last, and a weight of 0 adds nothing.
  bool careful = false;

  int64_t kv_head(int64_t head) const { return head / (heads / k.heads); }
  const double* fades_of(int64_t b, int64_t h) const { return fades + b * fades_stride[0] + h * fades_stride[1]; }
  const float* counted_of(int64_t b, int64_t h, int64_t t) const { return counted + ((b * heads + h) * q_len + t) * counts; }
  bool in_order(int64_t t, int64_t u) const {
    const int64_t distance = t + offset - u;
    return !(causal && distance < 0) && !(window && (distance >= window || -distance >= window));
  }
};

struct Span {
  int64_t first, stop;
};

// The keys that any of the queries t0 ... t1 - 1 may see by their order.
inline Span keys_for(const Problem& p, int64_t t0, int64_t t1) {
  int64_t first = 0, stop = p.k_len;
  if (p.causal) stop = std::min(stop, t1 + p.offset);
  if (p.window) {
    first = std::max(first, t0 + p.offset - p.window + 1);
    stop = std::min(stop, t1 - 1 + p.offset + p.window);
  }
  return {first, std::max(first, stop)};
}

// The queries that may see any of the keys u0 ... u1 - 1 by their order.
inline Span queries_for(const Problem& p, int64_t u0, int64_t u1) {
  int64_t first = 0, stop = p.q_len;
  if (p.causal) first = std::max(first, u0 - p.offset);
  if (p.window) {
    first = std::max(first, u0 - p.offset - p.window + 1);
    stop = std::min(stop, u1 - 1 - p.offset + p.window);
  }
  return {first, std::max(first, stop)};
}

INLINE float as_float(uint32_t bits) {
  float x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
INLINE float widen(uint16_t bits, Element element) {
  if (element == Element::BFLOAT16) return as_float(uint32_t(bits) << 16);
  const uint32_t sign = uint32_t(bits & 0x8000u) << 16, magnitude = bits & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23), special = (magnitude << 13) | 0x7f800000u;
  uint32_t subnormal;
  const float small = float(int32_t(magnitude)) * 0x1p-24f;
  std::memcpy(&subnormal, &small, sizeof(small));
  return as_float(sign | (magnitude >= 0x7c00u ? special : magnitude < 0x400u ? subnormal : normal));
}

INLINE uint16_t narrow(float x, Element element) {  // to nearest, ties to even
  uint32_t u;
  std::memcpy(&u, &x, sizeof(u));
  if (element == Element::BFLOAT16) return uint16_t(x != x ? 0x7fc0u : (u + 0x7fffu + ((u >> 16) & 1u)) >> 16);
  const uint32_t sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu, shifted = magnitude - (112u << 23);
  const uint32_t normal = (shifted + 0xfffu + ((shifted >> 13) & 1u)) >> 13;
  const float half = as_float(magnitude) + 0.5f;  // 0.5 has a last place of 2^-24, the step of subnormal halves
  uint32_t subnormal;
  std::memcpy(&subnormal, &half, sizeof(half));
  const uint32_t finite = magnitude < 0x38800000u ? subnormal - 0x3f000000u : normal;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  return uint16_t(sign | (magnitude >= 0x477ff000u ? special : finite));
}

template <Element element>
INLINE void copy_row(const void* from, int64_t at, int64_t step, int64_t count, float factor, float* to) {
  if constexpr (element == Element::FLOAT) {
    const float* const x = static_cast<const float*>(from) + at;
    if (step == 1) {
      for (int64_t i = 0; i < count; ++i) to[i] = x[i] * factor;
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = x[i * step] * factor;
    }
  } else {
    const uint16_t* const x = static_cast<const uint16_t*>(from) + at;
    if (step == 1) {
      for (int64_t i = 0; i < count; ++i) to[i] = widen(x[i], element) * factor;
    } else {
      for (int64_t i = 0; i < count; ++i) to[i] = widen(x[i * step], element) * factor;
    }
  }
}

// Tokens first ... stop - 1 of a head as rows of `width` floats, zeros after the channels, all times a factor.
INLINE void copy_tokens(const Operand& x, int64_t b, int64_t h, int64_t first, int64_t stop, float factor, float* to,
                        int64_t width) {
  for (int64_t token = first; token < stop; ++token, to += width) {
    const int64_t at = b * x.stride[0] + h * x.stride[1] + token * x.stride[2];
    switch (x.element) {
      case Element::FLOAT:
        copy_row<Element::FLOAT>(x.data, at, x.stride[3], x.channels, factor, to);
        break;
      case Element::HALF:
        copy_row<Element::HALF>(x.data, at, x.stride[3], x.channels, factor, to);
        break;
      case Element::BFLOAT16:
        copy_row<Element::BFLOAT16>(x.data, at, x.stride[3], x.channels, factor, to);
    }
    for (int64_t c = x.channels; c < width; ++c) to[c] = 0.0f;
  }
}

struct Rows {  // tokens as rows of floats
  const float* data;
  int64_t row;
};

// The same rows, read where they lie if they are floats in whole vectors, and else through `room`.
INLINE Rows rows_of(const Operand& x, int64_t b, int64_t h, int64_t first, int64_t stop, float* room, int64_t width) {
  if (x.element == Element::FLOAT && x.stride[3] == 1 && x.channels == width) {
    const int64_t at = b * x.stride[0] + h * x.stride[1] + first * x.stride[2];
    return {static_cast<const float*>(x.data) + at, x.stride[2]};
  }
  copy_tokens(x, b, h, first, stop, 1.0f, room, width);
  return {room, width};
}

// Rows of queries as columns: to[c * QUERIES + t], zeros from the last query to the last of `columns`.
INLINE void transpose(const float* rows, int64_t row, int64_t count, int64_t columns, int64_t channels, float* to) {
  for (int64_t c = 0; c < channels; ++c) {
    float* const line = to + c * QUERIES;
    for (int64_t t = 0; t < count; ++t) line[t] = rows[t * row + c];
    for (int64_t t = count; t < columns; ++t) line[t] = 0.0f;
  }
}

// The diagonals of a tile that a query may see, counted as in Diagonals.
INLINE Span diagonals_for(const Problem& p, int64_t t0, int64_t t1, int64_t u0, int64_t u1) {
  const int64_t nearest = t0 + p.offset - (u1 - 1), furthest = t1 - 1 + p.offset - u0, count = furthest - nearest + 1;
  int64_t low = p.causal ? 0 : nearest, high = furthest;
  if (p.window) {
    low = std::max(low, 1 - p.window);
    high = std::min(high, p.window - 1);
  }
  const int64_t first = std::clamp<int64_t>(low - nearest, 0, count);
  return {first, std::clamp<int64_t>(high - nearest + 1, first, count)};
}

constexpr int64_t FEW_ROWS = 12;  // of a tile that is cut

// Which pairs of a tile a causal order lets meet: query t sees the keys up to t + shift, both counted from the tile's
// first. Where it cuts off none, or too few to be worth it, the functions give all.
struct Cut {
  int64_t shift, keys;
  bool cuts;

  Cut(const Problem& p, int64_t t0, int64_t t1, int64_t u0, int64_t u1)
      : shift(t0 + p.offset - u0), keys(u1 - u0), cuts(p.causal && t1 - t0 > 2 * FEW_ROWS && shift < u1 - u0 - 1) {}
  INLINE int64_t keys_before(int64_t query) const {  // that any query before this one sees
    return cuts ? std::clamp<int64_t>(query + shift, 0, keys) : keys;
  }
  INLINE int64_t first_query(int64_t key) const { return cuts ? std::max<int64_t>(0, key - shift) : 0; }
  INLINE int64_t block(int64_t rows, int64_t few) const { return cuts ? few : rows; }  // of rows with a cut of its own
};

// What the order of tokens and the table add to the scores of a tile: entry (u1 - 1 - u) + (t - t0) for key u and query
// t, because both depend on the distance alone. Minus infinity where a query may not see a key. One row more than the
// tile needs is never read.
struct Diagonals {
  float values[QUERIES + KEYS];
  float largest;  // of those that queries of the tile read
  bool any;       // false: nothing is added

  INLINE void make(const Problem& p, int64_t h, int64_t t0, int64_t t1, int64_t u0, int64_t u1) {
    const int64_t nearest = t0 + p.offset - (u1 - 1), count = t1 - t0 + u1 - u0 - 1;
    const auto [begin, end] = diagonals_for(p, t0, t1, u0, u1);
    const bool adds = p.table != nullptr && p.units == nullptr;
    any = adds || begin > 0 || end < count;
    largest = 0.0f;
    if (!any) return;
    for (int64_t i = 0; i < begin; ++i) values[i] = -INFINITE;
    if (adds) {
      const float* const row = p.table + h * p.table_row + p.zero + nearest;
      float most = -INFINITE;
      for (int64_t i = begin; i < end; ++i) {
        values[i] = row[i];
        most = values[i] > most ? values[i] : most;
      }
      largest = most;
    } else {
      for (int64_t i = begin; i < end; ++i) values[i] = 0.0f;
    }
    for (int64_t i = end; i < count; ++i) values[i] = -INFINITE;
    for (int64_t i = count; i < QUERIES + KEYS; ++i) values[i] = 0.0f;  // no query stands there
  }
};

// What fades from token to token, added to scores that lie as scores[(u - u0) * QUERIES + (t - t0)]. The numbers are
// sums over all tokens, so their difference is what is rounded.
INLINE void add_fading(const Problem& p, int64_t b, int64_t h, int64_t t0, int64_t t1, int64_t u0, int64_t u1,
                       float* scores) {
  const double* const c = p.fades_of(b, h);
  const double* const own = c + p.offset + t0;
  for (int64_t u = u0; u < u1; ++u) {
    float* const line = scores + (u - u0) * QUERIES;
    const double key = c[u];
    for (int64_t t = 0; t < t1 - t0; ++t) {
      const double change = own[t] - key;
      line[t] += float(0.0 < change ? 0.0 : change);  // NaN stays NaN
    }
  }
}

// No less than any change from a key of a tile to a query of it; infinity if one of the numbers is not finite.
INLINE float largest_change(const Problem& p, int64_t b, int64_t h, int64_t t0, int64_t t1, int64_t u0, int64_t u1) {
  const double* const c = p.fades_of(b, h);
  double most = -double(INFINITE), least = double(INFINITE), any = 0.0;
  for (int64_t i = p.offset + t0; i < p.offset + t1; ++i) most = c[i] > most ? c[i] : most, any += c[i];
  for (int64_t i = u0; i < u1; ++i) least = c[i] < least ? c[i] : least, any += c[i];
  return any - any == 0.0 ? float(most - least) : INFINITE;
}
INLINE float most_added(float change) { return change < INFINITE ? std::min(change, 0.0f) : INFINITE; }

// What documents and a bool mask hide, of scores that lie as scores[(u - u0) * QUERIES + (t - t0)]; with care what order
// hides too, which was added before.
INLINE void hide(const Problem& p, int64_t b, int64_t h, int64_t t0, int64_t t1, int64_t u0, int64_t u1,
                        float* scores) {
  for (int64_t u = u0; p.careful && u < u1; ++u) {
    float* const line = scores + (u - u0) * QUERIES;
    for (int64_t t = t0; t < t1; ++t) line[t - t0] = p.in_order(t, u) ? line[t - t0] : -INFINITE;
  }
  if (p.documents != nullptr) {
    const int64_t* const documents = p.documents + b * p.documents_row;
    for (int64_t u = u0; u < u1; ++u) {
      float* const line = scores + (u - u0) * QUERIES;
      const int64_t own = documents[u];
      const int64_t* const theirs = documents + p.offset + t0;
      for (int64_t t = 0; t < t1 - t0; ++t) line[t] = theirs[t] == own ? line[t] : -INFINITE;
    }
  }
  if (p.mask == nullptr || p.mask_is_float) return;
  const int64_t* const stride = p.mask_stride;
  const int64_t start = b * stride[0] + h * stride[1] + t0 * stride[2];
  for (int64_t u = u0; u < u1; ++u) {
    float* const line = scores + (u - u0) * QUERIES;
    const uint8_t* const mask = static_cast<const uint8_t*>(p.mask) + start + u * stride[3];
    for (int64_t t = 0; t < t1 - t0; ++t) line[t] = mask[t * stride[2]] ? line[t] : -INFINITE;
  }
}

INLINE float with_mask(const Problem& p, float score, float mask) {
  return p.careful && mask == -INFINITE ? mask : score + mask;
}

// A float mask, added to the same, after whatever else is.
INLINE void add_mask(const Problem& p, int64_t b, int64_t h, int64_t t0, int64_t t1, int64_t u0, int64_t u1,
                     float* scores) {
  const int64_t* const stride = p.mask_stride;
  const int64_t start = b * stride[0] + h * stride[1] + t0 * stride[2];
  for (int64_t u = u0; u < u1; ++u) {
    float* const line = scores + (u - u0) * QUERIES;
    const float* const mask = static_cast<const float*>(p.mask) + start + u * stride[3];
    for (int64_t t = 0; t < t1 - t0; ++t) line[t] = with_mask(p, line[t], mask[t * stride[2]]);
  }
}

// The largest length of a row, rounded up; infinity if any is no finite number.
template <class L>
INLINE float longest(const float* rows, int64_t row, int64_t count, int64_t channels) {
  float most = 0.0f;
  bool finite = true;
  for (int64_t t = 0; t < count; ++t) {
    const float* const x = rows + t * row;
    typename L::F squares{};
    int64_t c = 0;
    for (; c + L::W <= channels; c += L::W) squares += L::load(x + c) * L::load(x + c);
    float square = sum<L>(squares);
    for (; c < channels; ++c) square += x[c] * x[c];
    finite &= square < INFINITE;
    most = square > most ? square : most;
  }
  return finite ? std::sqrt(most) * 1.0001f : INFINITE;
}

// Whether all weights of a tile are certain to be 0: |q . k| is at most `product`, what is added at most `bias`, and
// every row has a score (or a logarithm of its sum) of at least `least`. The margins are far above the rounding.
INLINE bool is_certainly_nothing(float product, float bias, float least) {
  return bias + std::fabs(bias) * 1e-5f + product * 1.001f + 0.5f < least + FLOOR;
}

INLINE bool is_finite(const float* x, int64_t count) {
  float none = 0.0f;
  for (int64_t i = 0; i < count; ++i) none += x[i] * 0.0f;
  return none == 0.0f;
}

INLINE bool is_zero(const float* x, int64_t count) {
  return std::all_of(x, x + count, [](float each) { return each == 0.0f; });
}

struct Scratch {  // memory of a thread, kept from call to call
  std::vector<float> room;
  float* next = nullptr;

  void reset(int64_t floats) {
    if (int64_t(room.size()) < floats + 64) room.resize(size_t(floats) + 64);
    const uintptr_t address = reinterpret_cast<uintptr_t>(room.data());
    next = room.data() + ((64 - address % 64) % 64) / 4;
  }
  float* take(int64_t floats) {
    float* const taken = next;
    next += (floats + 15) / 16 * 16;
    return taken;
  }
};

}  // namespace posenc_attention

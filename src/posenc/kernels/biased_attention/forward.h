// Attention of a tile of queries to all keys that they may see, from the nearest keys to the furthest.

#pragma once

#include "counts.h"
#include "shares.h"

namespace posenc_attention {

struct Output {
  void* y;  // (batch, heads, q_len, value channels), dense
  Element element;
  float* lse;             // (batch, heads, q_len): the logarithm of each row's sum of exponentials, minus infinity if
                          // empty; or null
  const float* longest;   // (batch, kv heads, tiles of keys): the longest key of each tile, or null if nothing is skipped
  int64_t key_tiles;
};

INLINE void write_row(const Output& out, int64_t at, const float* from, int64_t count, float factor) {
  if (out.element == Element::FLOAT) {
    float* const y = static_cast<float*>(out.y) + at;
    for (int64_t c = 0; c < count; ++c) y[c] = from[c] * factor;
  } else if (out.element == Element::BFLOAT16) {
    uint16_t* const y = static_cast<uint16_t*>(out.y) + at;
    for (int64_t c = 0; c < count; ++c) y[c] = narrow(from[c] * factor, Element::BFLOAT16);
  } else {
    uint16_t* const y = static_cast<uint16_t*>(out.y) + at;
    for (int64_t c = 0; c < count; ++c) y[c] = narrow(from[c] * factor, Element::HALF);
  }
}

// Returns whether the row is finite.
INLINE bool finish_row(const Problem& p, const Output& out, int64_t row, const float* sums, float most, float total) {
  const bool empty = total == 0.0f;  // not for NaN
  if (out.lse != nullptr) out.lse[row] = empty ? -INFINITE : most + std::log(total);
  write_row(out, row * p.v.channels, sums, p.v.channels, empty ? 0.0f : 1.0f / total);
  return is_finite(sums, p.v.channels) && total < INFINITE;
}

// The n-th of some tiles of keys, if they are taken from `nearest` back to `first` and then from the one after `nearest` on.
INLINE int64_t nearest_first(int64_t n, int64_t first, int64_t nearest) {
  return n <= nearest - first ? nearest - n : first + n;
}

// Returns whether the result is finite.
template <class L>
INLINE bool forward_tile(const Problem& p, const Output& out, int64_t b, int64_t h, int64_t t0, Scratch& scratch) {
  using F = typename L::F;
  const int64_t t1 = std::min(t0 + QUERIES, p.q_len), rows = t1 - t0, columns = whole_vectors<L>(rows);
  const int64_t channels = p.q.channels, width = whole_vectors<L>(p.v.channels), kv = p.kv_head(h);
  const bool counting = p.counts > 0;
  const int64_t counted = counting ? QUERIES * (2 * p.counts + counts_row(p) + 2) : 0;
  scratch.reset(QUERIES * (2 * channels + KEYS + width + 8) + KEYS * (channels + width) + counted + 256);
  float* const q_rows = scratch.take(QUERIES * channels);
  float* const queries = scratch.take(channels * QUERIES);
  float* const scores = scratch.take(KEYS * QUERIES);
  float* const sums = scratch.take(QUERIES * width);
  float* const most = scratch.take(QUERIES);
  float* const now = scratch.take(QUERIES);
  float* const totals = scratch.take(QUERIES);
  float* const shrink = scratch.take(QUERIES);
  float* const k_room = scratch.take(KEYS * channels);
  float* const v_room = scratch.take(KEYS * width);
  float* const pairs = scratch.take(2 * QUERIES * p.counts);
  float* const products = scratch.take(p.by_count != nullptr ? QUERIES * counts_row(p) : 0);
  float* const level = scratch.take(counting ? QUERIES : 0);  // of what is added once the counts are settled
  float* const nothing = scratch.take(counting ? QUERIES : 0);

  copy_tokens(p.q, b, h, t0, t1, p.scale, q_rows, channels);
  transpose(q_rows, channels, rows, columns, channels, queries);
  const float longest_query = out.longest != nullptr ? longest<L>(q_rows, channels, rows, channels) : 0.0f;
  std::fill(sums, sums + rows * width, 0.0f);
  const bool sunk = p.sinks != nullptr;
  std::fill(most, most + QUERIES, sunk ? p.sinks[h] : -INFINITE);
  std::fill(totals, totals + QUERIES, sunk && p.sinks[h] > -INFINITE ? 1.0f : 0.0f);

  const bool masked = p.mask != nullptr || p.documents != nullptr || p.careful;
  const bool fading = p.fades != nullptr, sharing = p.units != nullptr;
  const Span keys = keys_for(p, t0, t1);
  Diagonals diagonals;
  Shares shares;
  Counter counter;
  if (counting) {
    if (p.by_count != nullptr) {
      const int64_t width = counts_row(p);
      std::fill(products, products + rows * width, 0.0f);
      L::add_product(rows, width, channels, q_rows, channels, 1, p.by_count, width, products, width);
      lay_out(p.counts, products, width, rows, columns, pairs);
    } else {
      lay_out(p.counts, p.counted_of(b, h, t0), p.counts, rows, columns, pairs);
    }
    counter.start(rows, p.counts);
    for (int64_t t = 0; t < columns; ++t) level[t] = pairs[2 * ((t + 1) * p.counts - 1)];
    std::fill(nothing, nothing + QUERIES, -INFINITE);
  }
  const auto visit = [&](int64_t tile_index) __attribute__((always_inline)) {
    const int64_t u0 = std::max(keys.first, tile_index * KEYS), u1 = std::min(keys.stop, (tile_index + 1) * KEYS);
    if (u0 >= u1) return;
    const int64_t count = u1 - u0;
    const bool settled = counting && counter.settled();
    const float* const above = settled ? nothing : most;
    diagonals.make(p, h, t0, t1, u0, u1);
    if (out.longest != nullptr) {
      const float product = longest_query * out.longest[(b * p.k.heads + kv) * out.key_tiles + tile_index];
      const float least = *std::min_element(most, most + rows);
      const float fade = fading ? most_added(largest_change(p, b, h, t0, t1, u0, u1)) : 0.0f;
      if (is_certainly_nothing(product, diagonals.largest + fade, least)) return;
    }
    const Rows key_rows = rows_of(p.k, b, kv, u0, u1, k_room, channels);
    std::copy(above, above + QUERIES, now);
    const Cut cut(p, t0, t1, u0, u1);
    make_scores<L>(cut, columns, key_rows.data, key_rows.row, channels, queries,
                   diagonals.any ? diagonals.values : nullptr, scores, now);
    if (fading) add_fading(p, b, h, t0, t1, u0, u1, scores);
    if (sharing) {
      shares.make<L>(p, h, t0, t1, u0, u1);
      add_shares<L>(shares, cut, columns, scores);
    }
    if (masked) hide(p, b, h, t0, t1, u0, u1, scores);
    if (counting && !settled) {
      count_keys<L, Pass::ADD>(cut, columns, p.counts, pairs, counter.totals, scores, {});
    }
    if (p.mask_is_float) add_mask(p, b, h, t0, t1, u0, u1, scores);
    if (fading || sharing || masked || (counting && !settled)) {
      largest_of_columns<L>(count, columns, scores, above, now);
    }
    bool moved = false;
    for (int64_t n = 0; n < columns; n += L::W) {
      const F before = L::load(most + n);
      F largest = L::load(now + n);
      if (settled) largest = L::max(largest + L::load(level + n), before);
      F shift = largest == -INFINITE ? F{} : largest;  // nothing seen yet: all weights are 0
      const F factor = L::exp(before - shift);
      moved |= L::any_above(largest, before);
      if (settled) shift -= L::load(level + n);
      F total{};
      const int64_t seen = cut.keys_before(n + L::W);
      for (int64_t u = 0; u < seen; ++u) {
        float* const at = scores + u * QUERIES + n;
        const F weight = L::exp(L::load(at) - shift);
        L::store(at, weight);
        total += weight;
      }
      for (int64_t u = seen; u < count; ++u) L::store(scores + u * QUERIES + n, F{});
      L::store(totals + n, L::load(totals + n) * factor + total);
      L::store(shrink + n, factor);
      L::store(most + n, largest);
    }
    if (moved) {
      for (int64_t t = 0; t < rows; ++t) {
        for (int64_t c = 0; c < width; c += L::W) {
          L::store(sums + t * width + c, L::load(sums + t * width + c) * shrink[t]);
        }
      }
    }
    const Rows value_rows = rows_of(p.v, b, kv, u0, u1, v_room, width);
    const int64_t block = cut.block(rows, FEW_ROWS);
    for (int64_t t = 0; t < rows; t += block) {
      add_weighted<L>(p, std::min(block, rows - t), width, cut.keys_before(t + block), scores + t, 1, QUERIES,
                      value_rows.data, value_rows.row, sums + t * width, width);
    }
  };
  const int64_t first = keys.first / KEYS, stop = (keys.stop + KEYS - 1) / KEYS;
  const int64_t nearest = std::clamp((t1 - 1 + p.offset) / KEYS, first, std::max(first, stop - 1));
  for (int64_t n = 0; n < stop - first; ++n) visit(nearest_first(n, first, nearest));  // one call, since it is inlined
  const int64_t row = (b * p.heads + h) * p.q_len + t0;
  bool finite = true;
  for (int64_t t = 0; t < rows; ++t) finite &= finish_row(p, out, row + t, sums + t * width, most[t], totals[t]);
  return finite;
}

INLINE float as_number(float x) { return x; }
INLINE float as_number(uint16_t bits) { return widen(bits, Element::BFLOAT16); }

// How far away the same row of the tile lies that is read next. (The stride of a single token may be any number.)
INLINE int64_t tile_before(const Problem& p, int64_t row) { return p.k_len > KEYS ? -KEYS * row : 0; }

// Asks for four vectors that will be read soon. The processor sees no stream in tiles that are read from last to first.
template <class L, class T>
INLINE void prefetch(const T* from) {
  constexpr int LINE = 64 / sizeof(T);
#pragma GCC unroll 4
  for (int i = 0; i < 4 * L::W; i += LINE) __builtin_prefetch(from + i, 0, 2);
}

// Scores of one query and `count` keys, keys side by side. `next` elements further on lies what is read next.
template <class L, class T>
INLINE void dot_products(int64_t count, const float* query, const T* keys, int64_t key_row, int64_t channels,
                         float* scores, int64_t next) {
  using F = typename L::F;
  int64_t u = 0;
  for (; channels % L::W == 0 && u + L::W <= count; u += L::W) {
    F sums[L::W];
    for (int i = 0; i < L::W; ++i) {
      const T* const key = keys + (u + i) * key_row;
      F sum{};
      for (int64_t c = 0; c < channels; c += L::W) sum += L::load(key + c) * L::load(query + c);
      for (int64_t c = 0; c < channels; c += 4 * L::W) prefetch<L, T>(key + next + c);
      sums[i] = sum;
    }
    L::store(scores + u, sum_each<L>(sums));
  }
  for (; u < count; ++u) {
    const T* const key = keys + u * key_row;
    F sums{};
    int64_t c = 0;
    for (; c + L::W <= channels; c += L::W) sums += L::load(key + c) * L::load(query + c);
    float total = sum<L>(sums);
    for (; c < channels; ++c) total += as_number(key[c]) * query[c];
    scores[u] = total;
  }
}

// sums += weights . values for one query, four vectors of channels and two values at a time.
template <class L, class T>
INLINE void add_values(int64_t count, const float* weights, const T* values, int64_t value_row, int64_t channels,
                       float* sums, int64_t next) {
  using F = typename L::F;
  int64_t c = 0;
  for (; c + 4 * L::W <= channels; c += 4 * L::W) {
    F even[4], odd[4];
#pragma GCC unroll 4
    for (int n = 0; n < 4; ++n) even[n] = odd[n] = F{};
    int64_t u = 0;
    for (; u + 2 <= count; u += 2) {
      const T* const at = values + u * value_row + c;
      prefetch<L, T>(at + next), prefetch<L, T>(at + next + value_row);
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) {
        even[n] += weights[u] * L::load(at + n * L::W);
        odd[n] += weights[u + 1] * L::load(at + value_row + n * L::W);
      }
    }
    if (u < count) {
#pragma GCC unroll 4
      for (int n = 0; n < 4; ++n) even[n] += weights[u] * L::load(values + u * value_row + c + n * L::W);
    }
#pragma GCC unroll 4
    for (int n = 0; n < 4; ++n) {
      L::store(sums + c + n * L::W, L::load(sums + c + n * L::W) + (even[n] + odd[n]));
    }
  }
  for (; c < channels; c += L::W) {
    F total{};
    for (int64_t u = 0; u < count; ++u) total += weights[u] * L::load(values + u * value_row + c);
    L::store(sums + c, L::load(sums + c) + total);
  }
}

// Rows of bfloat16 in whole vectors, which are read where they lie; null for all others.
template <class L>
INLINE const uint16_t* bfloat16_rows(const Operand& x, int64_t b, int64_t h, int64_t first) {
  if (x.element != Element::BFLOAT16 || x.stride[3] != 1 || x.channels % L::W != 0) return nullptr;
  return static_cast<const uint16_t*>(x.data) + b * x.stride[0] + h * x.stride[1] + first * x.stride[2];
}

// One query alone, as in a step of decoding: nothing is gained by turning it.
template <class L>
INLINE bool forward_row(const Problem& p, const Output& out, int64_t b, int64_t h, int64_t t, Scratch& scratch) {
  using F = typename L::F;
  const int64_t channels = p.q.channels, width = whole_vectors<L>(p.v.channels), kv = p.kv_head(h);
  scratch.reset(channels + 2 * KEYS + width + KEYS * (channels + width) + p.counts + 256);
  float* const query = scratch.take(channels);
  float* const scores = scratch.take(KEYS);
  float* const added = scratch.take(KEYS * 1);
  float* const sums = scratch.take(width);
  float* const k_room = scratch.take(KEYS * channels);
  float* const v_room = scratch.take(KEYS * width);
  float* const products = scratch.take(p.counts);
  copy_tokens(p.q, b, h, t, t + 1, p.scale, query, channels);
  const float* const by_count = p.counted == nullptr ? products : p.counted_of(b, h, t);
  if (p.by_count != nullptr) dot_products<L>(p.counts, query, p.by_count, channels, channels, products, 0);
  std::fill(sums, sums + width, 0.0f);
  const bool sunk = p.sinks != nullptr;
  float most = sunk ? p.sinks[h] : -INFINITE, total = sunk && most > -INFINITE ? 1.0f : 0.0f;
  double total_count = 0.0;
  Network units;
  if (p.units != nullptr) units.read(p, h);
  const Span keys = keys_for(p, t, t + 1);
  const auto visit = [&](int64_t tile_index) __attribute__((always_inline)) {
    const int64_t u0 = std::max(keys.first, tile_index * KEYS), u1 = std::min(keys.stop, (tile_index + 1) * KEYS);
    if (u0 >= u1) return;
    const int64_t count = u1 - u0, columns = whole_vectors<L>(count);
    if (const uint16_t* const keys16 = bfloat16_rows<L>(p.k, b, kv, u0)) {
      dot_products<L>(count, query, keys16, p.k.stride[2], channels, scores, tile_before(p, p.k.stride[2]));
    } else {
      const Rows key_rows = rows_of(p.k, b, kv, u0, u1, k_room, channels);
      dot_products<L>(count, query, key_rows.data, key_rows.row, channels, scores, tile_before(p, key_rows.row));
    }
    for (int64_t i = count; i < columns; ++i) scores[i] = -INFINITE;
    if (p.table != nullptr) {
      const float* const row = p.table + h * p.table_row + p.zero + p.offset + t - u0;
      for (int64_t i = 0; i < count; ++i) added[i] = row[-i];
      if (p.units != nullptr) to_shares<L>(units, p.factors[t], count, added);
      for (int64_t i = 0; i < count; ++i) scores[i] += added[i];
    }
    if (p.fades != nullptr) {
      const double* const c = p.fades_of(b, h);
      const double own = c[p.offset + t];
      for (int64_t i = 0; i < count; ++i) {
        const double change = own - c[u0 + i];
        scores[i] += float(0.0 < change ? 0.0 : change);
      }
    }
    if (p.documents != nullptr) {
      const int64_t* const documents = p.documents + b * p.documents_row;
      const int64_t own = documents[p.offset + t];
      for (int64_t i = 0; i < count; ++i) scores[i] = documents[u0 + i] == own ? scores[i] : -INFINITE;
    }
    const int64_t* const stride = p.mask_stride;
    const int64_t start = b * stride[0] + h * stride[1] + t * stride[2] + u0 * stride[3];
    if (p.mask != nullptr && !p.mask_is_float) {
      const uint8_t* const mask = static_cast<const uint8_t*>(p.mask) + start;
      for (int64_t i = 0; i < count; ++i) scores[i] = mask[i * stride[3]] ? scores[i] : -INFINITE;
    }
    if (p.counts > 0) {
      total_count = add_at_counts<L>(by_count, p.counts, total_count, count, scores, added);
    }
    if (p.mask_is_float) {
      const float* const mask = static_cast<const float*>(p.mask) + start;
      for (int64_t i = 0; i < count; ++i) scores[i] = with_mask(p, scores[i], mask[i * stride[3]]);
    }
    F largest = L::all(most);
    bool counts = false;
    for (int64_t i = 0; i < columns; i += L::W) {
      const F x = L::load(scores + i);
      counts |= L::any_above(x, L::all(most + FLOOR));
      largest = L::max(x, largest);
    }
    if (!counts) return;  // every weight is exactly 0
    float now = most;
    for (int i = 0; i < L::W; ++i) now = largest[i] > now ? largest[i] : now;
    const float shift = now == -INFINITE ? 0.0f : now;
    F weights{};
    for (int64_t i = 0; i < columns; i += L::W) {
      const F weight = L::exp(L::load(scores + i) - shift);
      L::store(scores + i, weight);
      weights += weight;
    }
    if (now != most) {
      const float factor = L::exp(L::all(most - shift))[0];
      for (int64_t c = 0; c < width; c += L::W) L::store(sums + c, L::load(sums + c) * factor);
      total *= factor;
    }
    total += sum<L>(weights);
    most = now;
    if (const uint16_t* const values16 = p.careful ? nullptr : bfloat16_rows<L>(p.v, b, kv, u0)) {
      return add_values<L>(count, scores, values16, p.v.stride[2], width, sums, tile_before(p, p.v.stride[2]));
    }
    const Rows value_rows = rows_of(p.v, b, kv, u0, u1, v_room, width);
    if (p.careful) return add_weighted<L>(p, 1, width, count, scores, 0, 1, value_rows.data, value_rows.row, sums, 0);
    add_values<L>(count, scores, value_rows.data, value_rows.row, width, sums, tile_before(p, value_rows.row));
  };
  const int64_t first = keys.first / KEYS, stop = (keys.stop + KEYS - 1) / KEYS;
  const int64_t nearest = std::clamp((t + p.offset) / KEYS, first, std::max(first, stop - 1));
  for (int64_t n = 0; n < stop - first; ++n) visit(nearest_first(n, first, nearest));  // one call, since it is inlined
  return finish_row(p, out, (b * p.heads + h) * p.q_len + t, sums, most, total);
}

}  // namespace posenc_attention

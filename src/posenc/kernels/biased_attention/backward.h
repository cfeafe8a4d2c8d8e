// The gradients of one head: the weights are made again, tile by tile, from the scores and the sums that were kept.

#pragma once

#include "forward.h"

namespace posenc_attention {

struct Gradients {
  Operand y;         // the gradient of the output
  Operand output;    // what the forward gave
  const float* lse;  // (batch, heads, q_len)
  // Dense, for each head of the queries, channels rounded up to `width` and `value_width`.
  float *q, *k, *v;
  int64_t width, value_width;
  float* table;      // (batch, heads, distances), or null
  int64_t distances;
  double* fades;     // (batch, heads, k_len), or null
  // If there are units: (batch, heads, q_len), and (batch, heads, units, 2), sums of what came where a unit is on.
  float* factors;
  double* units;
  float* counted;    // (batch, heads, q_len, counts), or null
};

// Sums over channels of the output times its gradient, which lies in `y_rows`; 0 for queries without any key.
template <class L>
INLINE void sums_of_rows(const Gradients& g, int64_t b, int64_t h, int64_t t0, int64_t count, const float* lse,
                         const float* y_rows, float* room, float* to) {
  using F = typename L::F;
  const int64_t width = g.value_width;
  const Rows rows = rows_of(g.output, b, h, t0, t0 + count, room, width);
  for (int64_t t = 0; t < count; ++t) {
    F sums{};
    for (int64_t c = 0; c < width; c += L::W) {
      sums += L::load(rows.data + t * rows.row + c) * L::load(y_rows + t * width + c);
    }
    to[t] = lse[t] == -INFINITE ? 0.0f : sum<L>(sums);
  }
}

// The least of the finite ones; minus infinity if any is NaN, infinity if all rows are empty.
INLINE float least_of(const float* lse, int64_t count) {
  float least = INFINITE;
  for (int64_t t = 0; t < count; ++t) {
    if (lse[t] != lse[t]) return -INFINITE;
    if (lse[t] > -INFINITE) least = std::min(least, lse[t]);
  }
  return least;
}

// The gradient of what fades: from those of the scores, which rise with the query's number and fall with the key's. Where
// nothing is added it is 0, and `slopes` is set so.
template <class L>
INLINE void add_fading_gradient(const Problem& p, int64_t b, int64_t h, int64_t t0, int64_t t1, int64_t u0, int64_t u1,
                                bool may_rise, float* slopes, float* by_query, double* to) {
  using F = typename L::F;
  const double* const c = p.fades_of(b, h);
  const int64_t rows = t1 - t0, own = p.offset + t0, columns = whole_vectors<L>(rows);
  std::fill(by_query, by_query + columns, 0.0f);
  for (int64_t u = u0; u < u1; ++u) {
    float* const line = slopes + (u - u0) * QUERIES;
    for (int64_t t = 0; may_rise && t < rows; ++t) line[t] = c[own + t] - c[u] > 0.0 ? 0.0f : line[t];
    F sums{};
    for (int64_t n = 0; n < columns; n += L::W) {
      const F slope = L::load(line + n);
      L::store(by_query + n, L::load(by_query + n) + slope);
      sums += slope;
    }
    to[u] -= double(sum<L>(sums));
  }
  for (int64_t t = 0; t < rows; ++t) to[own + t] += double(by_query[t]);
}

// Returns whether the gradients are finite: those of the queries, into which those of all scores go.
template <class L>
INLINE bool backward_head(const Problem& p, const Gradients& g, int64_t b, int64_t h, Scratch& scratch,
                          CountsBefore::Make make_counts) {
  using F = typename L::F;
  const int64_t channels = p.q.channels, value_channels = p.v.channels, kv = p.kv_head(h);
  const int64_t width = g.width, value_width = g.value_width, tiles = (p.q_len + QUERIES - 1) / QUERIES;
  const int64_t padded = tiles * QUERIES;
  const bool counting = p.counted != nullptr;
  scratch.reset(padded * (width + value_width + channels + value_channels + 4) + 2 * KEYS * QUERIES +
                KEYS * (width + value_width) + 2 * QUERIES + KEYS + 512 +
                (counting ? padded * 2 + QUERIES * (3 * KEYS + 2 * p.counts) + 64 : 0));
  float* const q_rows = scratch.take(padded * width);
  float* const y_rows = scratch.take(padded * value_width);
  float* const q_columns = scratch.take(padded * channels);
  float* const y_columns = scratch.take(padded * value_channels);
  float* const lse = scratch.take(padded);
  float* const delta = scratch.take(padded);
  float* const longest_query = scratch.take(tiles);
  float* const least = scratch.take(tiles);
  float* const weights = scratch.take(KEYS * QUERIES);
  float* const slopes = scratch.take(KEYS * QUERIES);  // the gradient of the scores
  float* const k_room = scratch.take(KEYS * width);
  float* const v_room = scratch.take(KEYS * value_width);
  float* const by_distance = scratch.take(QUERIES + KEYS);
  float* const unused = scratch.take(QUERIES);

  const int64_t row = (b * p.heads + h) * p.q_len;
  float* const q_gradient = g.q + row * width;
  float* const k_gradient = g.k + (b * p.heads + h) * p.k_len * width;
  float* const v_gradient = g.v + (b * p.heads + h) * p.k_len * value_width;
  float* const distances = g.table == nullptr ? nullptr : g.table + (b * p.heads + h) * g.distances;
  float* const table_gradient = distances == nullptr ? nullptr : distances + p.zero;
  std::fill(q_gradient, q_gradient + p.q_len * width, 0.0f);
  std::fill(k_gradient, k_gradient + p.k_len * width, 0.0f);
  std::fill(v_gradient, v_gradient + p.k_len * value_width, 0.0f);
  if (distances != nullptr) std::fill(distances, distances + g.distances, 0.0f);
  double* const fade_gradient = g.fades == nullptr ? nullptr : g.fades + (b * p.heads + h) * p.k_len;
  if (fade_gradient != nullptr) std::fill(fade_gradient, fade_gradient + p.k_len, 0.0);
  float* const factor_gradient = g.units == nullptr ? nullptr : g.factors + row;
  double* const unit_gradient = g.units == nullptr ? nullptr : g.units + (b * p.heads + h) * p.unit_count * 2;
  if (g.units != nullptr) {
    std::fill(factor_gradient, factor_gradient + p.q_len, 0.0f);
    std::fill(unit_gradient, unit_gradient + p.unit_count * 2, 0.0);
  }

  copy_tokens(p.q, b, h, 0, p.q_len, p.scale, q_rows, width);
  copy_tokens(g.y, b, h, 0, p.q_len, 1.0f, y_rows, value_width);
  for (int64_t i = 0; i < tiles; ++i) {
    const int64_t t0 = i * QUERIES, count = std::min(QUERIES, p.q_len - t0), columns = whole_vectors<L>(count);
    transpose(q_rows + t0 * width, width, count, columns, channels, q_columns + t0 * channels);
    transpose(y_rows + t0 * value_width, value_width, count, columns, value_channels, y_columns + t0 * value_channels);
    sums_of_rows<L>(g, b, h, t0, count, g.lse + row + t0, y_rows + t0 * value_width, v_room, delta + t0);
    longest_query[i] = p.skip ? longest<L>(q_rows + t0 * width, width, count, channels) : 0.0f;
    least[i] = least_of(g.lse + row + t0, count);
  }
  for (int64_t t = 0; t < padded; ++t) {
    bool empty = t >= p.q_len || g.lse[row + t] == -INFINITE;
    // A query whose result nobody used adds nothing, even if it is no number.
    if (p.careful && !empty) empty = is_zero(y_rows + t * value_width, value_width);
    lse[t] = empty ? INFINITE : g.lse[row + t];  // all its weights are then 0
    if (t >= p.q_len) delta[t] = 0.0f;
  }
  const bool masked = p.mask != nullptr || p.documents != nullptr || p.careful;
  Shares shares;

  CountsBefore before;
  Kept kept{};
  float *pairs = nullptr, *behind = nullptr, *level = nullptr, *counted_gradient = nullptr;
  if (counting) {
    behind = scratch.take(padded), level = scratch.take(padded), pairs = scratch.take(2 * QUERIES * p.counts);
    kept = {scratch.take(KEYS * QUERIES), scratch.take(KEYS * QUERIES), scratch.take(KEYS * QUERIES)};
    make_counts(before, {p, b, h, q_columns, k_room, width, weights, unused});
    std::fill(behind, behind + padded, 0.0f);
    for (int64_t t = 0; t < padded; ++t) level[t] = t < p.q_len ? p.counted_of(b, h, t)[p.counts - 1] : 0.0f;
    if (g.counted != nullptr) {
      counted_gradient = g.counted + row * p.counts;
      std::fill(counted_gradient, counted_gradient + p.q_len * p.counts, 0.0f);
    }
  }

  for (int64_t first_key = 0; first_key < p.k_len; first_key += KEYS) {
    const int64_t stop_key = std::min(first_key + KEYS, p.k_len);
    const Span queries = queries_for(p, first_key, stop_key);
    if (queries.first >= queries.stop) continue;
    const Rows keys = rows_of(p.k, b, kv, first_key, stop_key, k_room, width);
    const Rows values = rows_of(p.v, b, kv, first_key, stop_key, v_room, value_width);
    const float longest_key =
        p.skip ? longest<L>(keys.data, keys.row, stop_key - first_key, channels) : 0.0f;
    for (int64_t i = queries.first / QUERIES; i * QUERIES < queries.stop; ++i) {
      const int64_t t0 = i * QUERIES, t1 = std::min(t0 + QUERIES, p.q_len), rows = t1 - t0;
      const int64_t columns = whole_vectors<L>(rows);
      const Span seen = keys_for(p, t0, t1);
      const int64_t u0 = std::max(first_key, seen.first), u1 = std::min(stop_key, seen.stop), count = u1 - u0;
      if (count <= 0) continue;
      Diagonals diagonals;
      diagonals.make(p, h, t0, t1, u0, u1);
      const float change = p.fades != nullptr ? largest_change(p, b, h, t0, t1, u0, u1) : 0.0f;
      const float most = diagonals.largest + most_added(change);
      if (p.skip && is_certainly_nothing(longest_query[i] * longest_key, most, least[i])) continue;
      const float* const key_rows = keys.data + (u0 - first_key) * keys.row;
      const float* const value_rows = values.data + (u0 - first_key) * values.row;
      const Cut cut(p, t0, t1, u0, u1);
      make_scores<L>(cut, columns, key_rows, keys.row, channels, q_columns + t0 * channels,
                     diagonals.any ? diagonals.values : nullptr, weights, unused);
      if (p.fades != nullptr) add_fading(p, b, h, t0, t1, u0, u1, weights);
      if (p.units != nullptr) {
        shares.make<L>(p, h, t0, t1, u0, u1);
        add_shares<L>(shares, cut, columns, weights);
      }
      if (masked) hide(p, b, h, t0, t1, u0, u1, weights);
      for (int64_t u = 0; p.careful && u < count; ++u) {
        float* const line = weights + u * QUERIES;
        for (int64_t t = 0; t < columns; ++t) line[t] = lse[t0 + t] == INFINITE ? -INFINITE : line[t];
      }
      const double* const counts = counting ? before.of(i, first_key / KEYS) : nullptr;
      const bool settled = counting && counts == nullptr;
      if (counts != nullptr) {
        double totals[QUERIES];
        for (int64_t t = 0; t < QUERIES; ++t) totals[t] = lse[t0 + t] == INFINITE ? 0.0 : counts[t];
        lay_out(p.counts, p.counted_of(b, h, t0), p.counts, t1 - t0, columns, pairs);
        count_keys<L, Pass::KEEP>(cut, columns, p.counts, pairs, totals, weights, kept);
      }
      if (p.mask_is_float) add_mask(p, b, h, t0, t1, u0, u1, weights);
      for (int64_t n = 0; n < columns; n += L::W) {
        F sums = L::load(lse + t0 + n);
        if (settled) sums -= L::load(level + t0 + n);
        const F start = -L::load(delta + t0 + n);
        const int64_t met = cut.keys_before(n + L::W);
        for (int64_t u = 0; u < met; ++u) {
          float* const at = weights + u * QUERIES + n;
          const F score = L::load(at), weight = L::exp(score - sums);
          L::store(at, p.careful ? (score == -INFINITE ? F{} : weight) : weight);
          L::store(slopes + u * QUERIES + n, start);
        }
        for (int64_t u = met; u < count; ++u) {
          L::store(weights + u * QUERIES + n, F{});
          L::store(slopes + u * QUERIES + n, F{});
        }
      }
      const int64_t wide = cut.block(columns, L::NR);
      for (int64_t n = 0; n < columns; n += wide) {
        L::add_product(cut.keys_before(n + wide), std::min(wide, columns - n), value_channels, value_rows, values.row, 1,
                       y_columns + t0 * value_channels + n, QUERIES, slopes + n, QUERIES);
      }
      for (int64_t u = 0; u < count; ++u) {
        for (int64_t n = 0; n < columns; n += L::W) {
          float* const at = slopes + u * QUERIES + n;
          const F weight = L::load(weights + u * QUERIES + n), slope = L::load(at) * weight;
          L::store(at, p.careful ? (weight == 0.0f ? F{} : slope) : slope);
        }
      }
      const int64_t key_block = cut.block(count, FEW_ROWS), query_block = cut.block(rows, FEW_ROWS);
      for (int64_t u = 0; u < count; u += key_block) {
        const int64_t t = std::min(cut.first_query(u), rows);
        add_weighted<L>(p, std::min(key_block, count - u), value_width, rows - t, weights + u * QUERIES + t, QUERIES, 1,
                        y_rows + (t0 + t) * value_width, value_width, v_gradient + (u0 + u) * value_width, value_width);
      }
      float* const of_counts = counted_gradient == nullptr ? nullptr : counted_gradient + t0 * p.counts;
      if (counts != nullptr) {
        add_counting_gradient<L>(cut, rows, columns, p.counts, kept, slopes, behind + t0, of_counts);
      } else if (of_counts != nullptr) {
        add_settled_gradient<L>(count, rows, columns, p.counts, slopes, unused, of_counts);
      }
      for (int64_t u = 0; u < count; u += key_block) {
        const int64_t t = std::min(cut.first_query(u), rows);
        add_weighted<L>(p, std::min(key_block, count - u), width, rows - t, slopes + u * QUERIES + t, QUERIES, 1,
                        q_rows + (t0 + t) * width, width, k_gradient + (u0 + u) * width, width);
      }
      for (int64_t t = 0; t < rows; t += query_block) {
        add_weighted<L>(p, std::min(query_block, rows - t), width, cut.keys_before(t + query_block), slopes + t, 1,
                        QUERIES, key_rows, keys.row, q_gradient + (t0 + t) * width, width);
      }
      if (g.units != nullptr) {
        add_share_gradients<L>(shares, count, rows, slopes, factor_gradient + t0, unit_gradient);  // sets slopes
      }
      if (table_gradient != nullptr) {
        const int64_t nearest = t0 + p.offset - (u1 - 1);
        std::fill(by_distance, by_distance + QUERIES + KEYS, 0.0f);
        for (int64_t u = 0; u < count; ++u) {
          float* const to = by_distance + count - 1 - u;
          for (int64_t n = 0; n < columns; n += L::W) {
            L::store(to + n, L::load(to + n) + L::load(slopes + u * QUERIES + n));
          }
        }
        const int64_t low = std::max<int64_t>(0, -p.zero - nearest);
        const int64_t high = std::min(count + rows - 1, g.distances - p.zero - nearest);
        for (int64_t n = low; n < high; ++n) table_gradient[nearest + n] += by_distance[n];
      }
      if (fade_gradient != nullptr) {
        const bool may_rise = change >= 0.0f;  // 0 may be a number too small for a float
        add_fading_gradient<L>(p, b, h, t0, t1, u0, u1, may_rise, slopes, unused, fade_gradient);  // sets slopes
      }
    }
  }
  for (int64_t n = 0; n < p.q_len * width; ++n) q_gradient[n] *= p.scale;
  return is_finite(q_gradient, p.q_len * width);
}

}  // namespace posenc_attention

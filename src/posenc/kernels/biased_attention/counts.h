// A bias that each query reads from a row of its own, at a count: CoPE's.
//
// A key's gate is the sigmoid of its score, 0 where it is hidden, and its count the sum of the gates from the query's own
// key back to it. Between two whole counts the row is interpolated. Past its last entry, where most keys are, that entry
// is added: a tile whose queries have all counted so far ("settled") needs no gates.

#pragma once

#include "scores.h"

namespace posenc_attention {

// The sigmoid of scores, and its slope. exp of what is not above 0 alone, so that nothing overflows.
template <class L>
INLINE typename L::F gate(typename L::F x, typename L::F& slope) {
  using F = typename L::F;
  const F small = L::exp(x < 0.0f ? x : -x), share = 1.0f / (1.0f + small), rest = small * share;
  slope = share * rest;
  return x < 0.0f ? rest : share;
}

// Rows of counts of a tile's queries as pairs, an entry and the step to the next: `whole` and `step` at those entries,
// counted in pairs. A load takes both.
template <class L>
INLINE void look_up(const float* pairs, const int32_t* at, typename L::F& whole, typename L::F& step) {
  using P = typename L::P;
  const auto pair = [&](int i) __attribute__((always_inline)) {
    double both;
    std::memcpy(&both, pairs + 2 * int64_t(at[i]), sizeof(both));
    return both;
  };
  P left, right;
  if constexpr (L::W == 4) {
    left = P{pair(0), pair(1)}, right = P{pair(2), pair(3)};
  } else if constexpr (L::W == 8) {
    left = P{pair(0), pair(1), pair(4), pair(5)}, right = P{pair(2), pair(3), pair(6), pair(7)};
  } else {
    left = P{pair(0), pair(1), pair(4), pair(5), pair(8), pair(9), pair(12), pair(13)};
    right = P{pair(2), pair(3), pair(6), pair(7), pair(10), pair(11), pair(14), pair(15)};
  }
  typename L::F a, b;
  std::memcpy(&a, &left, sizeof(a)), std::memcpy(&b, &right, sizeof(b));
  typename L::I even, odd;  // within each four, which all instruction sets do at once
#pragma GCC unroll 16
  for (int i = 0; i < L::W; ++i) {
    even[i] = i / 4 * 4 + i % 4 / 2 * L::W + i % 2 * 2;
    odd[i] = even[i] + 1;
  }
  whole = __builtin_shuffle(a, b, even), step = __builtin_shuffle(a, b, odd);
}

// What the backward keeps of the pairs of a tile, each laid out as the scores are.
struct Kept {
  float *places, *steps, *slopes;  // the count; the step of the row there; the slope of the gate
};

enum class Pass { COUNT, ADD, KEEP };  // count alone; add the bias too; keep what the backward reads too

// From the last key of a tile to the first: the gates of each query are added to `totals`, and what its row holds at its
// count to the scores. A few gates are summed at a time: one added to a count of many would lose its last places.
template <class L, Pass PASS>
INLINE void count_keys(const Cut& cut, int64_t columns, int64_t length, const float* pairs, double* totals, float* scores,
                       Kept kept) {
  using F = typename L::F;
  using I = typename L::I;
  constexpr int64_t FEW_KEYS = 16;
  const F last = L::all(float(length - 1));
  for (int64_t n = 0; n < columns; n += L::W) {
    I rows;
    for (int i = 0; i < L::W; ++i) rows[i] = int32_t((n + i) * length);
    for (int64_t stop = cut.keys_before(n + L::W); stop > 0; stop -= FEW_KEYS) {
      float part[L::W];
      for (int i = 0; i < L::W; ++i) part[i] = float(totals[n + i]);
      const F before = L::load(part);
      const int64_t first = std::max<int64_t>(stop - FEW_KEYS, 0);
      int32_t entries[FEW_KEYS * L::W];
      float shares[FEW_KEYS * L::W];
      F sum{};
      for (int64_t u = stop - 1; u >= first; --u) {
        F slope;
        sum += gate<L>(L::load(scores + u * QUERIES + n), slope);
        if constexpr (PASS == Pass::COUNT) continue;
        const F place = sum + before, clamped = last < place ? last : place;  // NaN stays NaN
        const F safe = clamped == clamped ? clamped : F{};
        const I entry = __builtin_convertvector(safe, I), at = rows + entry;
        std::memcpy(entries + (u - first) * L::W, &at, sizeof(at));
        L::store(shares + (u - first) * L::W, clamped - __builtin_convertvector(entry, F));
        if constexpr (PASS == Pass::KEEP) {
          L::store(kept.places + u * QUERIES + n, safe);
          L::store(kept.slopes + u * QUERIES + n, slope);
        }
      }
      for (int64_t u = first; PASS != Pass::COUNT && u < stop; ++u) {
        float* const to = scores + u * QUERIES + n;
        F whole, step;
        look_up<L>(pairs, entries + (u - first) * L::W, whole, step);
        L::store(to, L::load(to) + (whole + L::load(shares + (u - first) * L::W) * step));
        if constexpr (PASS == Pass::KEEP) L::store(kept.steps + u * QUERIES + n, step);
      }
      L::store(part, sum);
      for (int i = 0; i < L::W; ++i) totals[n + i] += double(part[i]);
    }
  }
}

// Floats of a row of counts, in whole vectors of any instruction set.
inline int64_t counts_row(const Problem& p) { return (p.counts + 15) / 16 * 16; }

// The rows of some queries as pairs, and zeros from the last query to the last of `columns`.
INLINE void lay_out(int64_t counts, const float* from, int64_t row, int64_t rows, int64_t columns, float* pairs) {
  const int64_t last = counts - 1;
  for (int64_t t = 0; t < rows; ++t, from += row, pairs += 2 * counts) {
    for (int64_t i = 0; i < last; ++i) pairs[2 * i] = from[i], pairs[2 * i + 1] = from[i + 1] - from[i];
    pairs[2 * last] = from[last], pairs[2 * last + 1] = 0.0f;
  }
  std::fill(pairs, pairs + (columns - rows) * 2 * counts, 0.0f);
}

// The table of counts as columns, (channels, counts_row), for the products of many queries.
inline std::vector<float> turned(const Problem& p) {
  std::vector<float> to(size_t(p.q.channels * counts_row(p)));
  for (int64_t i = 0; i < p.counts; ++i) {
    for (int64_t c = 0; c < p.q.channels; ++c) to[size_t(c * counts_row(p) + i)] = p.by_count[i * p.q.channels + c];
  }
  return to;
}

// How far the queries of a tile have counted.
struct Counter {
  double totals[QUERIES];
  double last;

  INLINE void start(int64_t rows, int64_t length) {
    last = double(length - 1);
    std::fill(totals, totals + rows, 0.0);
    std::fill(totals + rows, totals + QUERIES, last);  // no query stands there
  }
  INLINE bool settled() const {
    bool all = true;
    for (int64_t t = 0; t < QUERIES; ++t) all &= totals[t] >= last;  // never for NaN
    return all;
  }
};

// The same for one query and keys side by side, up to a whole vector of them: gives the count so far.
template <class L>
INLINE double add_at_counts(const float* row, int64_t length, double total, int64_t count, float* scores, float* gates) {
  const float last = float(length - 1);
  if (total >= double(last)) {
    for (int64_t i = 0; i < count; ++i) scores[i] += row[length - 1];
    return total;
  }
  for (int64_t i = 0; i < count; i += L::W) {
    typename L::F slope;
    L::store(gates + i, gate<L>(L::load(scores + i), slope));
  }
  for (int64_t i = count - 1; i >= 0; --i) {
    total += double(gates[i]);
    const float place = float(total), clamped = last < place ? last : place;
    const int64_t entry = clamped == clamped ? int64_t(clamped) : 0;
    const float step = entry + 1 < length ? row[entry + 1] - row[entry] : 0.0f;
    scores[i] += row[entry] + (clamped - float(entry)) * step;
  }
  return total;
}

// How far the queries of a head have counted before each tile of keys that is not settled, for the backward, which goes
// from the furthest keys to the nearest. Made anew: kept from the forward, it would grow with queries times keys.
struct CountsBefore {
  std::vector<double> totals;  // QUERIES for each tile of queries and keys, from the nearest keys to the furthest
  struct Tile {
    size_t start;
    int64_t nearest, count;
  };
  std::vector<Tile> tiles;

  const double* of(int64_t query_tile, int64_t key_tile) const {
    const Tile& tile = tiles[size_t(query_tile)];
    const int64_t further = tile.nearest - key_tile;
    return further < tile.count ? totals.data() + tile.start + size_t(further * QUERIES) : nullptr;
  }

  struct Room {  // of the backward of a head
    const Problem& p;
    int64_t b, h;
    const float* q_columns;
    float* k_room;
    int64_t width;
    float *scores, *unused;
  };
  using Make = void (*)(CountsBefore&, const Room&);  // a call, because what is inlined slows the rest of the backward

  template <class L>
  INLINE void make(const Room& room) {
    const auto& [p, b, h, q_columns, k_room, width, scores, unused] = room;
    const int64_t channels = p.q.channels;
    for (int64_t t0 = 0; t0 < p.q_len; t0 += QUERIES) {
      const int64_t t1 = std::min(t0 + QUERIES, p.q_len), columns = whole_vectors<L>(t1 - t0);
      const Span seen = keys_for(p, t0, t1);
      const int64_t nearest = (seen.stop - 1) / KEYS;
      Counter counter;
      counter.start(t1 - t0, p.counts);
      tiles.push_back({totals.size(), nearest, 0});
      for (int64_t i = nearest; i * KEYS + KEYS > seen.first && !counter.settled(); --i, ++tiles.back().count) {
        totals.insert(totals.end(), counter.totals, counter.totals + QUERIES);
        const int64_t u0 = std::max(seen.first, i * KEYS), u1 = std::min(seen.stop, (i + 1) * KEYS);
        Diagonals diagonals;
        diagonals.make(p, h, t0, t1, u0, u1);
        const Rows keys = rows_of(p.k, b, p.kv_head(h), u0, u1, k_room, width);
        const Cut cut(p, t0, t1, u0, u1);
        make_scores<L>(cut, columns, keys.data, keys.row, channels, q_columns + t0 * channels,
                       diagonals.any ? diagonals.values : nullptr, scores, unused);
        hide(p, b, h, t0, t1, u0, u1, scores);
        count_keys<L, Pass::COUNT>(cut, columns, p.counts, nullptr, counter.totals, scores, {});
      }
    }
  }
};

// From the gradient of a tile's scores, the bias in them: adds that of the queries' rows to `rows`, if not null, and that
// of the gates to the gradient itself. A key's gate is in the counts of all keys behind it, and `behind` has the sums of
// their slopes, which this carries on.
template <class L>
INLINE void add_counting_gradient(const Cut& cut, int64_t queries, int64_t columns, int64_t length, Kept kept,
                                  float* slopes, float* behind, float* rows) {
  using F = typename L::F;
  for (int64_t u = 0; rows != nullptr && u < cut.keys; ++u) {
    const float *const places = kept.places + u * QUERIES, *const line = slopes + u * QUERIES;
    float upper[QUERIES];
    int32_t entries[QUERIES];
    for (int64_t t = cut.first_query(u); t < queries; ++t) {
      entries[t] = std::min(int32_t(places[t]), int32_t(length - 2));  // at the last count all goes to the upper one
      upper[t] = line[t] * (places[t] - float(entries[t]));
    }
    for (int64_t t = cut.first_query(u); t < queries; ++t) {
      float* const to = rows + t * length + entries[t];
      to[0] += line[t] - upper[t];
      to[1] += upper[t];
    }
  }
  for (int64_t n = 0; n < columns; n += L::W) {
    const F before = L::load(behind + n);
    F sum{};
    for (int64_t u = 0; u < cut.keys_before(n + L::W); ++u) {
      float* const at = slopes + u * QUERIES + n;
      const F slope = L::load(at);
      sum += slope * L::load(kept.steps + u * QUERIES + n);
      L::store(at, slope + (before + sum) * L::load(kept.slopes + u * QUERIES + n));
    }
    L::store(behind + n, before + sum);
  }
}

// The same for a tile that is settled, where every pair has the last entry and no gate counts.
template <class L>
INLINE void add_settled_gradient(int64_t count, int64_t queries, int64_t columns, int64_t length, const float* slopes,
                                 float* by_query, float* rows) {
  using F = typename L::F;
  for (int64_t n = 0; n < columns; n += L::W) {
    F sum{};
    for (int64_t u = 0; u < count; ++u) sum += L::load(slopes + u * QUERIES + n);
    L::store(by_query + n, sum);
  }
  for (int64_t t = 0; t < queries; ++t) rows[t * length + length - 1] += by_query[t];
}

}  // namespace posenc_attention

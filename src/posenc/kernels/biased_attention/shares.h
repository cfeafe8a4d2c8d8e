// A bias that a small network makes of a share: what the table counts for a distance, times a factor of the query.

#pragma once

#include "problem.h"

namespace posenc_attention {

struct Bounds {
  float low = INFINITE, high = -INFINITE;

  INLINE Bounds(const float* x, int64_t count) {
    constexpr int SIDE = 16;  // side by side, because each comparison waits for the one before it
    float lows[SIDE], highs[SIDE];
    std::fill(lows, lows + SIDE, low), std::fill(highs, highs + SIDE, high);
    int64_t i = 0;
    for (; i + SIDE <= count; i += SIDE) {
      for (int n = 0; n < SIDE; ++n) {
        lows[n] = x[i + n] < lows[n] ? x[i + n] : lows[n], highs[n] = x[i + n] > highs[n] ? x[i + n] : highs[n];
      }
    }
    for (int n = 0; i < count; ++i, ++n) {
      lows[n] = x[i] < lows[n] ? x[i] : lows[n], highs[n] = x[i] > highs[n] ? x[i] : highs[n];
    }
    for (int n = 0; n < SIDE; ++n) low = lows[n] < low ? lows[n] : low, high = highs[n] > high ? highs[n] : high;
  }
};

// The units of a head side by side, and zeros up to whole vectors of any instruction set.
struct Network {
  float in[MOST_UNITS], at[MOST_UNITS], out[MOST_UNITS];
  int64_t count = 0;

  INLINE void read(const Problem& p, int64_t h) {
    const float* unit = p.units + h * p.unit_count * 3;
    for (; count < p.unit_count; ++count, unit += 3) in[count] = unit[0], at[count] = unit[1], out[count] = unit[2];
    for (int64_t i = count; i % 16 != 0; ++i) in[i] = at[i] = out[i] = 0.0f;
  }
};

// The network between two shares. Units that are on throughout make one line together, units that are off throughout
// give nothing, and each of the others bends the line. Few of a tile's do.
struct Lines {
  struct Bend {
    float in, at, out;
    int64_t unit;
  };
  Bend bends[MOST_UNITS];
  int32_t on[MOST_UNITS];  // whether a unit is on throughout: -1 or 0
  int64_t bend_count = 0, unit_count = 0;
  float slope = 0.0f, start = 0.0f;

  template <class L>
  INLINE void make(const Network& units, float low, float high) {
    using F = typename L::F;
    bend_count = 0, unit_count = units.count;
    F slopes{}, starts{};
    for (int64_t i = 0; i < units.count; i += L::W) {
      const F in = L::load(units.in + i), at = L::load(units.at + i), out = L::load(units.out + i);
      const F first = in * low + at, last = in * high + at;
      const typename L::I none = (first <= 0.0f) & (last <= 0.0f), all = (first > 0.0f) & (last > 0.0f);
      slopes += all ? out * in : F{}, starts += all ? out * at : F{};
      std::memcpy(on + i, &all, sizeof(all));
      const typename L::I bent = ~(none | all);  // or one of them is NaN, which must come through
      int32_t any = 0;
      for (int n = 0; n < L::W; ++n) any |= bent[n];
      for (int n = 0; any != 0 && n < L::W; ++n) {
        if (bent[n] && i + n < units.count) bends[bend_count++] = {in[n], at[n], out[n], i + n};
      }
    }
    slope = sum<L>(slopes), start = sum<L>(starts);
  }
  template <class F>
  INLINE F value(F share) const {
    F y = share * slope + start;
    for (int64_t i = 0; i < bend_count; ++i) {
      const F x = share * bends[i].in + bends[i].at;
      y += (x < 0.0f ? F{} : x) * bends[i].out;
    }
    return y;
  }
};

struct Shares {  // of a tile of queries and keys
  float counts[QUERIES + KEYS];  // by diagonal, as in Diagonals; 0 where no query of the tile looks
  float factors[QUERIES];
  Network units;  // of the head, read once
  Lines lines;

  template <class L>
  INLINE void make(const Problem& p, int64_t h, int64_t t0, int64_t t1, int64_t u0, int64_t u1) {
    const Span seen = diagonals_for(p, t0, t1, u0, u1);
    const float* const row = p.table + h * p.table_row + p.zero + t0 + p.offset - (u1 - 1);
    std::fill(counts, counts + QUERIES + KEYS, 0.0f);
    std::fill(factors, factors + QUERIES, 0.0f);
    for (int64_t i = seen.first; i < seen.stop; ++i) counts[i] = row[i];
    std::copy(p.factors + t0, p.factors + t1, factors);
    const Bounds count(counts + seen.first, seen.stop - seen.first), factor(factors, t1 - t0);
    const float corners[4] = {count.low * factor.low, count.low * factor.high, count.high * factor.low,
                              count.high * factor.high};
    const Bounds share(corners, 4);
    if (units.count == 0) units.read(p, h);
    lines.make<L>(units, share.low, share.high);
  }
};

// Added to scores that lie as scores[(u - u0) * QUERIES + (t - t0)].
template <class L>
INLINE void add_shares(const Shares& shares, const Cut& cut, int64_t columns, float* scores) {
  for (int64_t u = 0; u < cut.keys; ++u) {
    const float* const counts = shares.counts + cut.keys - 1 - u;
    float* const line = scores + u * QUERIES;
    for (int64_t n = cut.first_query(u) / L::W * L::W; n < columns; n += L::W) {
      const typename L::F share = L::load(counts + n) * L::load(shares.factors + n);
      L::store(line + n, L::load(line + n) + shares.lines.value(share));
    }
  }
}

// What the table counts for one query and `count` keys, made what is added to their scores.
template <class L>
INLINE void to_shares(const Network& units, float factor, int64_t count, float* counts) {
  for (int64_t i = 0; i < count; ++i) counts[i] *= factor;
  const Bounds share(counts, count);
  Lines lines;
  lines.make<L>(units, share.low, share.high);
  for (int64_t i = 0; i < count; i += L::W) L::store(counts + i, lines.value(L::load(counts + i)));
}

// The gradients of the factors and, of each unit, the sums of what came where it is on, alone and times the share. What
// came, in `slopes`, is made the gradient of the counts.
template <class L>
INLINE void add_share_gradients(const Shares& shares, int64_t count, int64_t rows, float* slopes, float* of_factors,
                                double* of_units) {
  using F = typename L::F;
  const Lines& lines = shares.lines;
  F alone{}, times{}, alone_on[MOST_UNITS], times_on[MOST_UNITS];
  for (int64_t i = 0; i < lines.bend_count; ++i) alone_on[i] = times_on[i] = F{};
  for (int64_t n = 0; n < rows; n += L::W) {
    const F factors = L::load(shares.factors + n);
    F by_query{};
    for (int64_t u = 0; u < count; ++u) {
      float* const at = slopes + u * QUERIES + n;
      const F gradient = L::load(at), counts = L::load(shares.counts + count - 1 - u + n), share = counts * factors;
      alone += gradient, times += gradient * share;
      F slope = F{} + lines.slope;
      for (int64_t i = 0; i < lines.bend_count; ++i) {
        const auto& bend = lines.bends[i];
        const auto is_on = share * bend.in + bend.at > 0.0f;
        const F here = is_on ? gradient : F{};
        alone_on[i] += here, times_on[i] += here * share;
        slope += is_on ? F{} + bend.in * bend.out : F{};
      }
      by_query += gradient * slope * counts;
      L::store(at, gradient * slope * factors);
    }
    for (int64_t t = n; t < std::min<int64_t>(n + L::W, rows); ++t) of_factors[t] += by_query[t - n];
  }
  const auto add = [&](int64_t unit, F first, F second) {
    of_units[2 * unit] += double(sum<L>(first)), of_units[2 * unit + 1] += double(sum<L>(second));
  };
  for (int64_t i = 0; i < lines.unit_count; ++i) {
    if (lines.on[i]) add(i, alone, times);
  }
  for (int64_t i = 0; i < lines.bend_count; ++i) add(lines.bends[i].unit, alone_on[i], times_on[i]);
}

}  // namespace posenc_attention

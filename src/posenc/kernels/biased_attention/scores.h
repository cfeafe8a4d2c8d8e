// The scores of a tile: products of keys and queries, and what the distance adds.
//
// Scores lie with queries side by side: scores[u][t]. So keys are read where they lie, and softmax runs down columns.

#pragma once

#include "problem.h"

namespace posenc_attention {

// scores = keys . queries + what the diagonals add; the largest of each column into `most`.
template <class L, int ROWS, int NV>
INLINE void score_rows(const float* keys, int64_t key_row, int64_t channels, const float* queries,
                       const float* diagonal, float* scores, typename L::F (&most)[NV]) {
  typename L::F sums[ROWS][NV] = {};
  tile<L, ROWS, NV>(keys, key_row, 1, queries, QUERIES, channels, sums);
#pragma GCC unroll 8
  for (int m = 0; m < ROWS; ++m) {
#pragma GCC unroll 8
    for (int n = 0; n < NV; ++n) {
      // Last: a sum that began at a large bias would round each product to its precision.
      if (diagonal != nullptr) sums[m][n] += L::load(diagonal - m + n * L::W);
      L::store(scores + m * QUERIES + n * L::W, sums[m][n]);
      most[n] = L::max(sums[m][n], most[n]);
    }
  }
}

template <class L, int NV>
INLINE void score_columns(int64_t count, const float* keys, int64_t key_row, int64_t channels, const float* queries,
                          const float* diagonal, float* scores, float* most) {
  typename L::F largest[NV];
  for (int n = 0; n < NV; ++n) largest[n] = L::load(most + n * L::W);
  int64_t u = 0;
  const auto at = [&](int64_t key) { return diagonal == nullptr ? nullptr : diagonal - key; };
  for (; u + L::MR <= count; u += L::MR) {
    score_rows<L, L::MR, NV>(keys + u * key_row, key_row, channels, queries, at(u), scores + u * QUERIES, largest);
  }
  for (; u + 2 <= count; u += 2) {
    score_rows<L, 2, NV>(keys + u * key_row, key_row, channels, queries, at(u), scores + u * QUERIES, largest);
  }
  if (u < count) {
    score_rows<L, 1, NV>(keys + u * key_row, key_row, channels, queries, at(u), scores + u * QUERIES, largest);
  }
  for (int n = 0; n < NV; ++n) L::store(most + n * L::W, largest[n]);
}

template <class L, int NV>
INLINE void cut_off(int64_t first_key, int64_t stop_key, float* scores) {
  for (int64_t u = first_key; u < stop_key; ++u) {
    for (int n = 0; n < NV; ++n) L::store(scores + u * QUERIES + n * L::W, L::all(-INFINITE));
  }
}

// Scores of the keys of a tile and `columns` queries (rounded up to vectors); `diagonals` may be null. What the order
// cuts off is minus infinity.
template <class L>
INLINE void make_scores(const Cut& cut, int64_t columns, const float* keys, int64_t key_row, int64_t channels,
                        const float* queries, const float* diagonals, float* scores, float* most) {
  const float* const last = diagonals == nullptr ? nullptr : diagonals + cut.keys - 1;
  int64_t n = 0;
  for (; n + L::NR <= columns; n += L::NR) {
    const int64_t count = cut.keys_before(n + L::NR);
    score_columns<L, L::NV>(count, keys, key_row, channels, queries + n, last ? last + n : last, scores + n, most + n);
    cut_off<L, L::NV>(count, cut.keys, scores + n);
  }
  for (; n < columns; n += L::W) {
    const int64_t count = cut.keys_before(n + L::W);
    score_columns<L, 1>(count, keys, key_row, channels, queries + n, last ? last + n : last, scores + n, most + n);
    cut_off<L, 1>(count, cut.keys, scores + n);
  }
}

template <class L>
INLINE int64_t whole_vectors(int64_t count) {
  return (count + L::W - 1) / L::W * L::W;
}

// C += A B, where an A of 0 adds nothing, whatever B is. A call, because what is inlined slows the rest.
inline __attribute__((noinline)) void add_nonzero(int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row,
                                           int64_t a_col, const float* b, int64_t b_row, float* c, int64_t c_row) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t k = 0; k < depth; ++k) {
      const float weight = a[i * a_row + k * a_col];
      for (int64_t n = 0; weight != 0.0f && n < columns; ++n) c[i * c_row + n] += weight * b[k * b_row + n];
    }
  }
}

template <class L>
INLINE void add_weighted(const Problem& p, int64_t rows, int64_t columns, int64_t depth, const float* a, int64_t a_row,
                         int64_t a_col, const float* b, int64_t b_row, float* c, int64_t c_row) {
  if (p.careful) return add_nonzero(rows, columns, depth, a, a_row, a_col, b, b_row, c, c_row);
  L::add_product(rows, columns, depth, a, a_row, a_col, b, b_row, c, c_row);
}

// The largest of each column again, after more was added.
template <class L>
INLINE void largest_of_columns(int64_t count, int64_t columns, const float* scores, const float* before, float* most) {
  for (int64_t n = 0; n < columns; n += L::W) {
    typename L::F largest = L::load(before + n);
    for (int64_t u = 0; u < count; ++u) largest = L::max(L::load(scores + u * QUERIES + n), largest);
    L::store(most + n, largest);
  }
}

}  // namespace posenc_attention

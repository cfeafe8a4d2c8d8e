// Rows: what there is to rotate, in which order it is visited, and the rotation of one row in plain loops. Strides count
// elements; an axis is batch, head, token or channel, whatever its place in the tensor.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <type_traits>

#include "elements.h"

namespace {

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

}  // namespace

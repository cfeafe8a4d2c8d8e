// What each instruction set does of attention. All are made of one text, level.cc, each by a call of the compiler of its
// own, so that a machine with some cores compiles them at once.

#pragma once

#include "problem.h"

namespace posenc_attention {

struct Output;
struct Gradients;

constexpr int64_t FEW = 4;  // queries that are worked on one by one

enum class Level { PORTABLE, AVX2, AVX512 };

struct Bodies {
  // These return whether the result is finite.
  bool (*forward)(const Problem&, const Output&, int64_t batch, int64_t head, int64_t first_query, Scratch&);
  bool (*backward)(const Problem&, const Gradients&, int64_t batch, int64_t head, Scratch&);
  void (*longest)(const Problem&, int64_t batch, int64_t kv_head, int64_t key_tile, float* to, Scratch&);
  int64_t lanes;
};

template <Level>
Bodies bodies_of();
template <>
Bodies bodies_of<Level::PORTABLE>();
template <>
Bodies bodies_of<Level::AVX2>();
template <>
Bodies bodies_of<Level::AVX512>();

}  // namespace posenc_attention

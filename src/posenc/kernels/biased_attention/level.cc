// The work of attention for one instruction set: -DLEVEL is its number in the order of Level. See bodies.h.

#include "backward.h"
#include "bodies.h"

#if LEVEL == 0 || defined(__x86_64__)

#if LEVEL == 0
#define TARGET
#elif LEVEL == 1 || defined(POSENC_EMULATE_AVX512)  // 16 lanes out of two registers, to test them where no AVX-512 is
#define TARGET __attribute__((target("avx2,fma")))
#else
#define TARGET __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512")))
#endif

namespace posenc_attention {
namespace {

using Own = Lanes<16 << LEVEL>;

// Functions of their own are what would slow the rest if it was inlined, or would be compiled many times.
struct Body : Own {
  TARGET __attribute__((noinline)) static void add_product(int64_t rows, int64_t columns, int64_t depth, const float* a,
                                                           int64_t a_row, int64_t a_col, const float* b, int64_t b_row,
                                                           float* c, int64_t c_row) {
    add_inlined<Own>(rows, columns, depth, a, a_row, a_col, b, b_row, c, c_row);
  }
  TARGET __attribute__((noinline)) static void count(CountsBefore& counts, const CountsBefore::Room& room) {
    counts.make<Body>(room);
  }
  TARGET static bool forward(const Problem& p, const Output& out, int64_t b, int64_t h, int64_t t, Scratch& scratch) {
    return p.q_len <= FEW ? forward_row<Body>(p, out, b, h, t, scratch) : forward_tile<Body>(p, out, b, h, t, scratch);
  }
  TARGET static bool backward(const Problem& p, const Gradients& g, int64_t b, int64_t h, Scratch& scratch) {
    return backward_head<Body>(p, g, b, h, scratch, count);
  }
  TARGET static void longest(const Problem& p, int64_t b, int64_t kv, int64_t key_tile, float* to, Scratch& scratch) {
    scratch.reset(KEYS * p.k.channels + 64);
    const int64_t first = key_tile * KEYS, stop = std::min(first + KEYS, p.k_len);
    const Rows rows = rows_of(p.k, b, kv, first, stop, scratch.take(KEYS * p.k.channels), p.k.channels);
    *to = posenc_attention::longest<Body>(rows.data, rows.row, stop - first, p.k.channels);
  }
};

}  // namespace

template <>
Bodies bodies_of<Level(LEVEL)>() {
  return {Body::forward, Body::backward, Body::longest, Body::W};
}

}  // namespace posenc_attention

#endif

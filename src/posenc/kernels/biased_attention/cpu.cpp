// flags: -O3 -ffp-contract=fast -Wno-psabi -falign-loops=64
// with: level.cc -DLEVEL=2
// with: level.cc -DLEVEL=1
// with: level.cc -DLEVEL=0
// (Loops at any multiple of 16 bytes cost up to 9 % more on an AMD core, by what stands before them in the library.)
//
// Attention with a bias of the distance on the CPU, in memory linear in the length, against PyTorch's stable ABI.
//
// posenc::_attention and posenc::_attention_backward are declared in fused.py, which also says what the arguments mean.
// Every check is made before the first read or write of an element. The checks are in checks.h, the work in forward.h and
// backward.h, compiled for each instruction set by level.cc.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <optional>
#include <tuple>

#include "backward.h"
#include "bodies.h"
#include "checks.h"

using namespace posenc_attention;

namespace {

// ---------------------------------------------------------------------------------------------------------------------
// Instruction sets.

Level best_level() {
#ifdef __x86_64__
  __builtin_cpu_init();
#ifdef POSENC_EMULATE_AVX512
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Level::AVX512;
#endif
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Level::AVX512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Level::AVX2;
#endif
  return Level::PORTABLE;
}

Level level = best_level();

Bodies bodies() {
#ifdef __x86_64__
  if (level == Level::AVX512) return bodies_of<Level::AVX512>();
  if (level == Level::AVX2) return bodies_of<Level::AVX2>();
#endif
  return bodies_of<Level::PORTABLE>();
}

// ---------------------------------------------------------------------------------------------------------------------
// The operators.

Tensor fresh(std::initializer_list<int64_t> sizes, int32_t dtype) {
  int64_t size[4], stride[4], step = 1;
  const int64_t dim = int64_t(sizes.size());
  std::copy(sizes.begin(), sizes.end(), size);
  for (int64_t i = dim - 1; i >= 0; --i) stride[i] = step, step *= std::max<int64_t>(size[i], 1);
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(dim, size, stride, dtype, aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

int32_t shim_dtype(Element element) {
  return element == Element::FLOAT  ? aoti_torch_dtype_float32()
         : element == Element::HALF ? aoti_torch_dtype_float16()
                                    : aoti_torch_dtype_bfloat16();
}

// Tasks 0 ... count - 1, each taken by the thread that is free: they differ in length, where order or proofs cut some.
template <class Task>
void run(int64_t count, double work, const Task& task) {
  std::atomic<int64_t> next{0};
  const auto take = [&](int64_t, int64_t) {
    const FlushSubnormals guard;
    thread_local Scratch scratch;
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) task(i, scratch);
  };
  constexpr double SERIAL = 1 << 17;  // multiplications below which a thread costs more than it brings
  const int64_t threads = work < SERIAL ? 1 : std::min<int64_t>(count, torch::stable::get_num_threads());
  if (threads <= 1) return take(0, 1);
  torch::stable::parallel_for(0, threads, 1, take);
}

Problem careful(const Problem& p) {
  Problem again = p;
  again.careful = true;
  return again;
}

Tensor forward(const Problem& p, float* lse) {
  Tensor y = fresh({p.batch, p.heads, p.q_len, p.v.channels}, shim_dtype(p.q.element));
  Output out{y.mutable_data_ptr(), p.q.element, lse, nullptr, 0};
  if (p.batch * p.heads * p.q_len == 0) return y;
  const Bodies body = bodies();
  const double work = double(p.batch) * double(p.heads) * double(p.q_len) * double(p.k_len) * double(p.q.channels);
  const int64_t height = p.q_len <= FEW ? 1 : QUERIES, tiles = (p.q_len + height - 1) / height;
  std::vector<float> longest;
  if (p.skip && p.q_len >= QUERIES && p.k_len > KEYS) {
    out.key_tiles = (p.k_len + KEYS - 1) / KEYS;
    longest.resize(size_t(p.batch * p.k.heads * out.key_tiles));
    out.longest = longest.data();
    run(p.batch * p.k.heads * out.key_tiles, work, [&](int64_t i, Scratch& scratch) {
      const int64_t row = i / out.key_tiles;
      body.longest(p, row / p.k.heads, row % p.k.heads, i % out.key_tiles, &longest[size_t(i)], scratch);
    });
  }
  // A few heads at a time, so that their keys and values stay in the cache, but enough for all threads until the end. Of
  // each few the longest tiles come first.
  const int64_t rows = p.batch * p.heads;
  const int64_t few = std::min(rows, (4 * int64_t(torch::stable::get_num_threads()) + tiles - 1) / tiles);
  run(rows * tiles, work, [&](int64_t i, Scratch& scratch) {
    const int64_t first = i / (few * tiles) * few, heads = std::min(few, rows - first), at = i - first * tiles;
    const int64_t row = first + at % heads, tile = tiles - 1 - at / heads;
    const int64_t b = row / p.heads, h = row % p.heads;
    if (!body.forward(p, out, b, h, tile * height, scratch)) body.forward(careful(p), out, b, h, tile * height, scratch);
  });
  return y;
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const std::optional<Tensor>& table,
                 int64_t zero, bool causal, int64_t window, const std::optional<Tensor>& mask,
                 const std::optional<Tensor>& documents, const std::optional<Tensor>& sinks, bool skip,
                 const std::optional<Tensor>& fades, const std::optional<Tensor>& factors,
                 const std::optional<Tensor>& units, const std::optional<Tensor>& counted) {
  return forward(
      checked(q, k, v, scale, table, zero, causal, window, mask, documents, sinks, skip, fades, factors, units, counted), nullptr);
}

// A causal call with a row at most, or shares of it. Its arguments are few, because the dispatcher takes its time for each.
Tensor attention_of_row(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                        const std::optional<Tensor>& table, int64_t zero, int64_t window,
                        const std::optional<Tensor>& factors, const std::optional<Tensor>& units) {
  Problem p = checked(q, k, v, scale, table, zero, true, window, {}, {}, {}, true, {}, {}, {}, {});
  set_shares(p, factors, units, p.offset);
  return forward(p, nullptr);
}

// A causal call that counts, by products of the queries with a table, which are made where they are read.
Tensor attention_of_counts(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const Tensor& by_count,
                           int64_t window) {
  Problem p = checked(q, k, v, scale, {}, 0, true, window, {}, {}, {}, true, {}, {}, {}, {});
  set_counts(p, by_count);
  std::vector<float> columns;
  if (p.q_len > FEW) columns = turned(p), p.by_count = columns.data();
  return forward(p, nullptr);
}

std::tuple<Tensor, Tensor> attention_and_sums(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                              const std::optional<Tensor>& table, int64_t zero, bool causal,
                                              int64_t window, const std::optional<Tensor>& mask,
                                              const std::optional<Tensor>& documents,
                                              const std::optional<Tensor>& sinks, bool skip,
                                              const std::optional<Tensor>& fades,
                                              const std::optional<Tensor>& factors,
                                              const std::optional<Tensor>& units,
                                              const std::optional<Tensor>& counted) {
  const Problem p =
      checked(q, k, v, scale, table, zero, causal, window, mask, documents, sinks, skip, fades, factors, units, counted);
  Tensor lse = fresh({p.batch, p.heads, p.q_len}, aoti_torch_dtype_float32());
  return {forward(p, static_cast<float*>(lse.mutable_data_ptr())), lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& gradient, const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
    double scale, const std::optional<Tensor>& table, int64_t zero, bool learns_table, bool causal, int64_t window,
    const std::optional<Tensor>& mask, const std::optional<Tensor>& documents, bool skip,
    const std::optional<Tensor>& fades, bool learns_fades, const std::optional<Tensor>& factors,
    const std::optional<Tensor>& units, const std::optional<Tensor>& counted, bool learns_counted) {
  const Problem p = checked(q, k, v, scale, table, zero, causal, window, mask, documents, std::nullopt, skip, fades,
                            factors, units, counted);
  Gradients g;
  g.y = operand("gradient", gradient);
  g.output = operand("output", y);
  for (const Tensor* x : {&gradient, &y}) {
    REQUIRE(x->size(0) == p.batch && x->size(1) == p.heads && x->size(2) == p.q_len && x->size(3) == p.v.channels,
            "got an output or its gradient of shape ", Shape{*x}, ", expected that of the output.");
  }
  REQUIRE(lse.is_cpu() && lse.scalar_type() == ScalarType::Float && lse.dim() == 3 && lse.size(0) == p.batch &&
              lse.size(1) == p.heads && lse.size(2) == p.q_len && lse.is_contiguous(),
          "got sums of shape ", Shape{lse}, ", expected contiguous float32 (batch, heads, q_len).");
  g.lse = static_cast<const float*>(lse.const_data_ptr());
  const Bodies body = bodies();
  const auto round = [&](int64_t channels) { return (channels + body.lanes - 1) / body.lanes * body.lanes; };
  g.width = round(p.q.channels), g.value_width = round(p.v.channels);
  g.distances = learns_table && p.table != nullptr ? table->size(1) : 0;
  const int32_t dtype = aoti_torch_dtype_float32();
  Tensor results[4] = {fresh({p.batch, p.heads, p.q_len, g.width}, dtype), fresh({p.batch, p.heads, p.k_len, g.width}, dtype),
                       fresh({p.batch, p.heads, p.k_len, g.value_width}, dtype),
                       fresh({p.batch, p.heads, g.distances}, dtype)};
  float* data[4];
  const bool empty = p.q_len == 0 || p.k_len == 0;
  for (int i = 0; i < 4; ++i) {
    data[i] = static_cast<float*>(results[i].mutable_data_ptr());
    if (empty) std::fill(data[i], data[i] + results[i].numel(), 0.0f);  // else each head begins with its own part
  }
  g.q = data[0], g.k = data[1], g.v = data[2], g.table = g.distances ? data[3] : nullptr;
  const double work = double(p.batch) * double(p.heads) * double(p.q_len) * double(p.k_len) * double(p.q.channels);
  const bool has_fades = learns_fades && p.fades != nullptr;
  Tensor of_context = fresh({p.batch, p.heads, has_fades ? p.k_len : 0}, aoti_torch_dtype_float64());
  g.fades = has_fades ? static_cast<double*>(of_context.mutable_data_ptr()) : nullptr;
  if (empty && has_fades) std::fill(g.fades, g.fades + of_context.numel(), 0.0);
  const bool shares = p.units != nullptr;
  Tensor of_factors = fresh({p.batch, p.heads, shares ? p.q_len : 0}, dtype);
  Tensor of_units = fresh({p.batch, p.heads, p.unit_count, 2}, aoti_torch_dtype_float64());
  g.factors = shares ? static_cast<float*>(of_factors.mutable_data_ptr()) : nullptr;
  g.units = shares ? static_cast<double*>(of_units.mutable_data_ptr()) : nullptr;
  if (empty && shares) {
    std::fill(g.factors, g.factors + of_factors.numel(), 0.0f);
    std::fill(g.units, g.units + of_units.numel(), 0.0);
  }
  g.counted = nullptr;
  if (learns_counted && p.counted != nullptr) {  // which fades are not given with
    of_context = fresh({p.batch, p.heads, p.q_len, p.counts}, dtype);
    g.counted = static_cast<float*>(of_context.mutable_data_ptr());
    if (empty) std::fill(g.counted, g.counted + of_context.numel(), 0.0f);
  }
  if (!empty) {
    run(p.batch * p.heads, work, [&](int64_t i, Scratch& scratch) {
      const int64_t reversed = p.batch * p.heads - 1 - i;  // slow slopes, which skip little, come last in ALiBi
      const int64_t b = reversed / p.heads, h = reversed % p.heads;
      if (!body.backward(p, g, b, h, scratch)) body.backward(careful(p), g, b, h, scratch);
    });
  }
  return {results[0], results[1], results[2], results[3], of_context, of_factors, of_units};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(posenc, CPU, library) {
  library.impl("_attention", TORCH_BOX(&attention));
  library.impl("_attention_of_row", TORCH_BOX(&attention_of_row));
  library.impl("_attention_of_counts", TORCH_BOX(&attention_of_counts));
  library.impl("_attention_and_sums", TORCH_BOX(&attention_and_sums));
  library.impl("_attention_backward", TORCH_BOX(&attention_backward));
}

// Which instruction set is used, and a way for tests to ask for a lesser one; in the order of Level.
extern "C" __attribute__((visibility("default"))) int posenc_attention_level() { return int(level); }
extern "C" __attribute__((visibility("default"))) int posenc_attention_set_level(int wanted) {
  level = Level(std::clamp(wanted, 0, int(best_level())));
  return int(level);
}

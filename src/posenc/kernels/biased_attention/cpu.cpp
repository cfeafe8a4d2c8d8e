// flags: -O3 -ffp-contract=fast -Wno-psabi -falign-loops=64
// (Loops at any multiple of 16 bytes cost up to 9 % more on an AMD core, by what stands before them in the library.)
//
// Attention with a bias of the distance on the CPU, in memory linear in the length, against PyTorch's stable ABI.
//
// posenc::_attention and posenc::_attention_backward are declared in fused.py, which also says what the arguments mean.
// Every check is made here, before the first read or write of an element. The work is in forward.h and backward.h.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>
#include <tuple>

#include "backward.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// ---------------------------------------------------------------------------------------------------------------------
// Instruction sets.

using ForwardBody = void (*)(const Problem&, const Output&, int64_t, int64_t, int64_t, Scratch&);
using BackwardBody = void (*)(const Problem&, const Gradients&, int64_t, int64_t, Scratch&);
using LongestBody = void (*)(const Problem&, int64_t, int64_t, int64_t, float*, Scratch&);

template <class L>
INLINE void longest_keys(const Problem& p, int64_t b, int64_t head, int64_t key_tile, float* to, Scratch& scratch) {
  scratch.reset(KEYS * p.k.channels + 64);
  const int64_t first = key_tile * KEYS, stop = std::min(first + KEYS, p.k_len);
  const Rows rows = rows_of(p.k, b, head, first, stop, scratch.take(KEYS * p.k.channels), p.k.channels);
  *to = longest<L>(rows.data, rows.row, stop - first, p.k.channels);
}

constexpr int64_t FEW = 4;  // queries that are worked on one by one

#define BODIES(name, bytes, target)                                                                                     \
  struct name {                                                                                                         \
    target static void forward(const Problem& p, const Output& out, int64_t b, int64_t h, int64_t t, Scratch& s) {      \
      p.q_len <= FEW ? forward_row<Lanes<bytes>>(p, out, b, h, t, s) : forward_tile<Lanes<bytes>>(p, out, b, h, t, s);  \
    }                                                                                                                   \
    target static void backward(const Problem& p, const Gradients& g, int64_t b, int64_t h, Scratch& s) {               \
      backward_head<Lanes<bytes>>(p, g, b, h, s);                                                                       \
    }                                                                                                                   \
    target static void longest(const Problem& p, int64_t b, int64_t h, int64_t i, float* to, Scratch& s) {              \
      longest_keys<Lanes<bytes>>(p, b, h, i, to, s);                                                                    \
    }                                                                                                                   \
    static constexpr int lanes = bytes / 4;                                                                             \
  };

BODIES(Portable, 16, )
#ifdef __x86_64__
BODIES(Avx2, 32, __attribute__((target("avx2,fma"))))
BODIES(Avx512, 64, __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,fma,prefer-vector-width=512"))))
#endif

enum class Level { PORTABLE, AVX2, AVX512 };

Level best_level() {
#ifdef __x86_64__
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl")) {
    return Level::AVX512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Level::AVX2;
#endif
  return Level::PORTABLE;
}

Level level = best_level();

struct Bodies {
  ForwardBody forward;
  BackwardBody backward;
  LongestBody longest;
  int64_t lanes;
};

template <class B>
Bodies bodies_of() {
  return {B::forward, B::backward, B::longest, B::lanes};
}

Bodies bodies() {
#ifdef __x86_64__
  if (level == Level::AVX512) return bodies_of<Avx512>();
  if (level == Level::AVX2) return bodies_of<Avx2>();
#endif
  return bodies_of<Portable>();
}

// ---------------------------------------------------------------------------------------------------------------------
// Checks. A refusal is std::invalid_argument, which Python sees as ValueError.

template <class... Parts>
[[noreturn]] __attribute__((noinline, cold)) void refuse(const Parts&... parts) {
  std::ostringstream message;
  message << "attention: ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

#define REQUIRE(condition, ...)            \
  do {                                     \
    if (!(condition)) refuse(__VA_ARGS__); \
  } while (false)

struct Shape {
  const Tensor& tensor;
};

std::ostream& operator<<(std::ostream& text, const Shape& shape) {
  text << "(";
  for (int64_t i = 0; i < shape.tensor.dim(); ++i) text << (i ? ", " : "") << shape.tensor.size(i);
  return text << ")";
}

bool is_countable(std::initializer_list<int64_t> sizes) {
  int64_t product = 64;  // bytes, with room to spare
  for (const int64_t size : sizes) {
    if (__builtin_mul_overflow(product, std::max<int64_t>(size, 1), &product)) return false;
  }
  return true;
}

Operand operand(const char* name, const Tensor& x) {
  REQUIRE(x.is_cpu(), "got ", name, " on another device, expected all tensors on the CPU.");
  REQUIRE(x.dim() == 4, "got ", name, " of shape ", Shape{x}, ", expected 4 dimensions.");
  REQUIRE(is_countable({x.size(0), x.size(1), x.size(2), x.size(3)}), "got ", name, " of shape ", Shape{x}, ", expected fewer elements.");
  const ScalarType dtype = x.scalar_type();
  REQUIRE(dtype == ScalarType::Float || dtype == ScalarType::Half || dtype == ScalarType::BFloat16, "got ", name,
          " of another dtype, expected float32, float16 or bfloat16.");
  Operand made;
  made.data = x.const_data_ptr();
  made.element = dtype == ScalarType::Float  ? Element::FLOAT
                 : dtype == ScalarType::Half ? Element::HALF
                                             : Element::BFLOAT16;
  made.heads = x.size(1), made.tokens = x.size(2), made.channels = x.size(3);
  for (int i = 0; i < 4; ++i) made.stride[i] = x.stride(i);
  return made;
}

Problem checked(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const std::optional<Tensor>& table,
                int64_t zero, bool causal, int64_t window, const std::optional<Tensor>& mask,
                const std::optional<Tensor>& documents, const std::optional<Tensor>& sinks, bool skip,
                const std::optional<Tensor>& fades, const std::optional<Tensor>& factors,
                const std::optional<Tensor>& units) {
  Problem p;
  p.q = operand("q", q), p.k = operand("k", k), p.v = operand("v", v);
  p.batch = q.size(0), p.heads = p.q.heads, p.q_len = p.q.tokens, p.k_len = p.k.tokens;
  p.offset = p.k_len - p.q_len;
  p.scale = float(scale), p.causal = causal;
  REQUIRE(k.size(0) == p.batch && v.size(0) == p.batch && p.k.channels == p.q.channels && p.v.heads == p.k.heads &&
              p.v.tokens == p.k_len && p.k.heads > 0 && p.heads % p.k.heads == 0,
          "got q ", Shape{q}, ", k ", Shape{k}, ", v ", Shape{v},
          ", expected one batch size, q and k of the same head_dim, a value for each key, and a multiple of its heads.");
  REQUIRE(p.k.element == p.q.element && p.v.element == p.q.element, "got q, k and v of different dtypes, expected one.");
  REQUIRE(!causal || p.q_len <= p.k_len, "got more queries than keys with causal, expected no more.");
  REQUIRE(window >= 0, "got window ", window, ", expected at least 1, or 0 for none.");
  // What is made is as large as parts of q, k and v together, whose tokens may all be one in memory.
  const int64_t widest = std::max(p.q.channels, p.v.channels) + 64;
  REQUIRE(is_countable({p.batch, p.heads, std::max(p.q_len, p.k_len), widest}), "got q ", Shape{q}, ", k ", Shape{k},
          ", v ", Shape{v}, ", expected fewer elements.");
  p.window = std::min(window, p.q_len + p.k_len + 1);  // a wider one hides nothing either, and sums could overflow
  window = p.window;
  const int64_t low = causal ? 0 : 1 - std::max<int64_t>(p.k_len, 1) + p.offset, high = std::max<int64_t>(p.k_len, 1) - 1;
  if (table.has_value()) {
    REQUIRE(table->is_cpu() && table->scalar_type() == ScalarType::Float && table->dim() == 2 &&
                table->size(0) == p.heads && (table->size(1) <= 1 || table->stride(1) == 1),
            "got a table of shape ", Shape{*table}, ", expected float32 of shape (", p.heads,
            ", distances) without gaps, on the CPU.");
    const int64_t least = window ? std::max(low, 1 - window) : low, most = window ? std::min(high, window - 1) : high;
    REQUIRE(zero >= 0 && zero < table->size(1) && least + zero >= 0 && most < table->size(1) - zero,
            "got a table of ", table->size(1), " distances with 0 at entry ", zero, ", expected those from ", least, " to ",
            most, ".");
    REQUIRE(is_countable({p.batch, p.heads, table->size(1)}), "got a table of shape ", Shape{*table},
            ", expected fewer distances.");
    p.table = static_cast<const float*>(table->const_data_ptr());
    p.table_row = table->stride(0), p.zero = zero;
  }
  if (mask.has_value()) {
    REQUIRE(mask->is_cpu() && mask->dim() == 4 &&
                (mask->scalar_type() == ScalarType::Bool || mask->scalar_type() == ScalarType::Float),
            "got a mask of shape ", Shape{*mask}, ", expected bool or float32 of 4 dimensions, on the CPU.");
    const int64_t full[4] = {p.batch, p.heads, p.q_len, p.k_len};
    for (int i = 0; i < 4; ++i) {
      REQUIRE(mask->size(i) == full[i] || mask->size(i) == 1, "got a mask of shape ", Shape{*mask},
              ", expected one that broadcasts to batch, heads, q_len and k_len.");
      p.mask_stride[i] = mask->size(i) == 1 ? 0 : mask->stride(i);
    }
    p.mask = mask->const_data_ptr(), p.mask_is_float = mask->scalar_type() == ScalarType::Float;
  }
  if (documents.has_value()) {
    REQUIRE(documents->is_cpu() && documents->scalar_type() == ScalarType::Long && documents->dim() == 2 &&
                (documents->size(0) == 1 || documents->size(0) == p.batch) && documents->size(1) == p.k_len &&
                (documents->size(1) <= 1 || documents->stride(1) == 1) && p.q_len <= p.k_len,
            "got documents of shape ", Shape{*documents}, ", expected int64 (batch or 1, ", p.k_len, ") without gaps.");
    p.documents = static_cast<const int64_t*>(documents->const_data_ptr());
    p.documents_row = documents->size(0) == 1 ? 0 : documents->stride(0);
  }
  if (sinks.has_value()) {
    REQUIRE(sinks->is_cpu() && sinks->scalar_type() == ScalarType::Float && sinks->dim() == 1 &&
                sinks->size(0) == p.heads && (p.heads <= 1 || sinks->stride(0) == 1),
            "got sinks of shape ", Shape{*sinks}, ", expected float32 (", p.heads, ") without gaps, on the CPU.");
    p.sinks = static_cast<const float*>(sinks->const_data_ptr());
  }
  if (fades.has_value()) {
    REQUIRE(fades->is_cpu() && fades->scalar_type() == ScalarType::Double && fades->dim() == 3 &&
                fades->size(0) == p.batch && fades->size(1) == p.heads && fades->size(2) == p.k_len &&
                (p.k_len <= 1 || fades->stride(2) == 1) && p.q_len <= p.k_len,
            "got fades of shape ", Shape{*fades}, ", expected float64 (", p.batch, ", ", p.heads, ", ", p.k_len,
            ") without gaps, on the CPU, and no more queries than keys.");
    p.fades = static_cast<const double*>(fades->const_data_ptr());
    for (int i = 0; i < 2; ++i) p.fades_stride[i] = fades->stride(i);
  }
  REQUIRE(factors.has_value() == units.has_value() && (!units.has_value() || (table.has_value() && !fades.has_value())),
          "got factors or units alone or with fades, expected units with a table and factors.");
  if (units.has_value()) {
    REQUIRE(units->is_cpu() && units->scalar_type() == ScalarType::Float && units->dim() == 3 &&
                units->size(0) == p.heads && units->size(1) >= 1 && units->size(1) <= MOST_UNITS && units->size(2) == 3 &&
                units->is_contiguous(),
            "got units of shape ", Shape{*units}, ", expected contiguous float32 (", p.heads, ", 1 to ", MOST_UNITS,
            ", 3), on the CPU.");
    REQUIRE(factors->is_cpu() && factors->scalar_type() == ScalarType::Float && factors->dim() == 1 &&
                factors->size(0) == p.q_len && factors->is_contiguous(),
            "got factors of shape ", Shape{*factors}, ", expected contiguous float32 (", p.q_len, "), on the CPU.");
    p.units = static_cast<const float*>(units->const_data_ptr()), p.unit_count = units->size(1);
    p.factors = static_cast<const float*>(factors->const_data_ptr());
  }
  // Without a bias that falls, or a float mask that lifts what it holds down, there is nothing to prove.
  p.skip = skip && ((p.table != nullptr && p.units == nullptr) || p.fades != nullptr) && !p.mask_is_float;
  return p;
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
    body.forward(p, out, row / p.heads, row % p.heads, tile * height, scratch);
  });
  return y;
}

Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const std::optional<Tensor>& table,
                 int64_t zero, bool causal, int64_t window, const std::optional<Tensor>& mask,
                 const std::optional<Tensor>& documents, const std::optional<Tensor>& sinks, bool skip,
                 const std::optional<Tensor>& fades, const std::optional<Tensor>& factors,
                 const std::optional<Tensor>& units) {
  return forward(
      checked(q, k, v, scale, table, zero, causal, window, mask, documents, sinks, skip, fades, factors, units), nullptr);
}

std::tuple<Tensor, Tensor> attention_and_sums(const Tensor& q, const Tensor& k, const Tensor& v, double scale,
                                              const std::optional<Tensor>& table, int64_t zero, bool causal,
                                              int64_t window, const std::optional<Tensor>& mask,
                                              const std::optional<Tensor>& documents,
                                              const std::optional<Tensor>& sinks, bool skip,
                                              const std::optional<Tensor>& fades,
                                              const std::optional<Tensor>& factors,
                                              const std::optional<Tensor>& units) {
  const Problem p =
      checked(q, k, v, scale, table, zero, causal, window, mask, documents, sinks, skip, fades, factors, units);
  Tensor lse = fresh({p.batch, p.heads, p.q_len}, aoti_torch_dtype_float32());
  return {forward(p, static_cast<float*>(lse.mutable_data_ptr())), lse};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> attention_backward(
    const Tensor& gradient, const Tensor& y, const Tensor& lse, const Tensor& q, const Tensor& k, const Tensor& v,
    double scale, const std::optional<Tensor>& table, int64_t zero, bool learns_table, bool causal, int64_t window,
    const std::optional<Tensor>& mask, const std::optional<Tensor>& documents, bool skip,
    const std::optional<Tensor>& fades, bool learns_fades, const std::optional<Tensor>& factors,
    const std::optional<Tensor>& units) {
  const Problem p = checked(q, k, v, scale, table, zero, causal, window, mask, documents, std::nullopt, skip, fades,
                            factors, units);
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
  Tensor of_fades = fresh({p.batch, p.heads, has_fades ? p.k_len : 0}, aoti_torch_dtype_float64());
  g.fades = has_fades ? static_cast<double*>(of_fades.mutable_data_ptr()) : nullptr;
  if (empty && has_fades) std::fill(g.fades, g.fades + of_fades.numel(), 0.0);
  const bool shares = p.units != nullptr;
  Tensor of_factors = fresh({p.batch, p.heads, shares ? p.q_len : 0}, dtype);
  Tensor of_units = fresh({p.batch, p.heads, p.unit_count, 2}, aoti_torch_dtype_float64());
  g.factors = shares ? static_cast<float*>(of_factors.mutable_data_ptr()) : nullptr;
  g.units = shares ? static_cast<double*>(of_units.mutable_data_ptr()) : nullptr;
  if (empty && shares) {
    std::fill(g.factors, g.factors + of_factors.numel(), 0.0f);
    std::fill(g.units, g.units + of_units.numel(), 0.0);
  }
  if (!empty) {
    run(p.batch * p.heads, work, [&](int64_t i, Scratch& scratch) {
      const int64_t reversed = p.batch * p.heads - 1 - i;  // slow slopes, which skip little, come last in ALiBi
      body.backward(p, g, reversed / p.heads, reversed % p.heads, scratch);
    });
  }
  return {results[0], results[1], results[2], results[3], of_fades, of_factors, of_units};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(posenc, CPU, library) {
  library.impl("_attention", TORCH_BOX(&attention));
  library.impl("_attention_and_sums", TORCH_BOX(&attention_and_sums));
  library.impl("_attention_backward", TORCH_BOX(&attention_backward));
}

// Which instruction set is used, and a way for tests to ask for a lesser one; in the order of Level.
extern "C" __attribute__((visibility("default"))) int posenc_attention_level() { return int(level); }
extern "C" __attribute__((visibility("default"))) int posenc_attention_set_level(int wanted) {
  level = Level(std::clamp(wanted, 0, int(best_level())));
  return int(level);
}

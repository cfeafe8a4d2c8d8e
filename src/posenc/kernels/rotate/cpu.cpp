// The rotation of queries and keys on CPU: one pass over memory, against PyTorch's stable ABI.
//
// posenc::_rotate and posenc::_rotate_ are declared in op.py, which also says what the arguments mean. Every check is
// made here, before the first read or write of an element, because the operators can be called from anywhere.
//
// Arithmetic: a cos - b sin and a sin + b cos in float (double for double), each product and each sum rounded by itself
// (compile with -ffp-contract=off), one rounding on the way out. So the result is bit for bit that of the eager form,
// whatever the instruction set.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <cstring>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <tuple>

#ifdef __linux__
#include <sys/mman.h>
#endif

#define INLINE inline __attribute__((always_inline))

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// ---------------------------------------------------------------------------------------------------------------------
// Elements. Conversions are written without branches, so that the loops below vectorise on any instruction set.

struct Half {
  uint16_t bits;
};
struct BFloat16 {
  uint16_t bits;
};

template <class To, class From>
INLINE To bits_as(From from) {
  static_assert(sizeof(To) == sizeof(From));
  To to;
  std::memcpy(&to, &from, sizeof(to));
  return to;
}

INLINE double load(double x) { return x; }
INLINE float load(float x) { return x; }
INLINE float load(BFloat16 x) { return bits_as<float>(uint32_t(x.bits) << 16); }
INLINE float load(Half x) {
  const uint32_t sign = uint32_t(x.bits & 0x8000u) << 16, magnitude = x.bits & 0x7fffu;
  const uint32_t normal = (magnitude << 13) + (112u << 23), special = (magnitude << 13) | 0x7f800000u;
  const uint32_t subnormal = bits_as<uint32_t>(float(int32_t(magnitude)) * 0x1p-24f);
  return bits_as<float>(sign | (magnitude >= 0x7c00u ? special : magnitude < 0x400u ? subnormal : normal));
}

INLINE void store(double* to, double x) { *to = x; }
INLINE void store(float* to, float x) { *to = x; }
INLINE void store(BFloat16* to, float x) {  // to nearest, ties to even
  const uint32_t u = bits_as<uint32_t>(x);
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  to->bits = uint16_t((u & 0x7fffffffu) > 0x7f800000u ? 0x7fc0u : rounded);
}
INLINE void store(Half* to, float x) {
  const uint32_t u = bits_as<uint32_t>(x), sign = (u >> 16) & 0x8000u, magnitude = u & 0x7fffffffu;
  const uint32_t shifted = magnitude - (112u << 23);
  const uint32_t normal = (shifted + 0xfffu + ((shifted >> 13) & 1u)) >> 13;
  // 0.5 has a last place of 2^-24, the step of subnormal halves: adding it rounds to that step.
  const uint32_t subnormal = bits_as<uint32_t>(bits_as<float>(magnitude) + 0.5f) - bits_as<uint32_t>(0.5f);
  const uint32_t finite = magnitude < 0x38800000u ? subnormal : normal;
  const uint32_t special = magnitude > 0x7f800000u ? 0x7e00u : 0x7c00u;
  to->bits = uint16_t(sign | (magnitude >= 0x477ff000u ? special : finite));
}

template <class T>
struct ArithmeticOf {
  using type = float;
};
template <>
struct ArithmeticOf<double> {
  using type = double;
};

// ---------------------------------------------------------------------------------------------------------------------
// The work. Strides count elements; an axis is batch, head, token or channel, whatever its place in the tensor.

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
  int64_t start, pairs, tokens, tile, tiles;  // a unit of work is one tile of tokens of one row of the batch
  bool inverse, in_place;
};

template <class T, bool interleaved>
INLINE void rotate_row(const T* x, T* y, int64_t x_stride, int64_t y_stride, const typename ArithmeticOf<T>::type* cos,
                       const typename ArithmeticOf<T>::type* sin, int64_t pairs, typename ArithmeticOf<T>::type sign) {
  const int64_t step = interleaved ? 2 : 1, partner = interleaved ? 1 : pairs;
#pragma GCC ivdep  // x and y are the same memory or disjoint, never shifted against each other
  for (int64_t c = 0; c < pairs; ++c) {
    const auto a = load(x[step * c * x_stride]), b = load(x[(step * c + partner) * x_stride]);
    const auto cosine = cos[c], sine = sign * sin[c];
    store(&y[step * c * y_stride], a * cosine - b * sine);
    store(&y[(step * c + partner) * y_stride], a * sine + b * cosine);
  }
}

// Channels with gaps between them are rare and bound by memory: one compiled form serves all instruction sets.
template <class T, bool interleaved>
__attribute__((noinline, optimize("no-tree-vectorize"))) void rotate_gapped_row(
    const T* x, T* y, int64_t x_stride, int64_t y_stride, const typename ArithmeticOf<T>::type* cos,
    const typename ArithmeticOf<T>::type* sin, int64_t pairs, typename ArithmeticOf<T>::type sign) {
  rotate_row<T, interleaved>(x, y, x_stride, y_stride, cos, sin, pairs, sign);
}

template <class T>
INLINE void copy_channels(const T* x, T* y, int64_t x_stride, int64_t y_stride, int64_t begin, int64_t end) {
  if (x_stride == 1 && y_stride == 1) {
    if (end > begin) std::memcpy(y + begin, x + begin, size_t(end - begin) * sizeof(T));
  } else {
    for (int64_t c = begin; c < end; ++c) y[c * y_stride] = x[c * x_stride];
  }
}

template <class T, bool interleaved>
INLINE void rotate_units(const Job& job, int64_t begin, int64_t end) {
  using Arithmetic = typename ArithmeticOf<T>::type;
  const Arithmetic sign = job.inverse ? -1 : 1;
  const auto* cos_table = static_cast<const Arithmetic*>(job.cos.data);
  const auto* sin_table = static_cast<const Arithmetic*>(job.sin.data);
  for (int64_t unit = begin; unit < end; ++unit) {
    const int64_t batch = unit / job.tiles, first = unit % job.tiles * job.tile;
    const int64_t last = std::min(first + job.tile, job.tokens);
    for (const Operand& operand : job.operands) {
      const auto &in = operand.in_stride, &out = operand.out_stride;
      const int64_t heads = operand.size[HEAD], channels = operand.size[CHANNEL];
      const bool unit_stride = in[CHANNEL] == 1 && out[CHANNEL] == 1;
      const bool head_outer = in[HEAD] >= in[TOKEN];  // walk memory in its own order
      const int64_t outer_end = head_outer ? heads : last - first, inner_end = head_outer ? last - first : heads;
      for (int64_t outer = 0; outer < outer_end; ++outer) {
        for (int64_t inner = 0; inner < inner_end; ++inner) {
          const int64_t head = head_outer ? outer : inner, token = first + (head_outer ? inner : outer);
          const T* x = static_cast<const T*>(operand.in) + batch * in[BATCH] + head * in[HEAD] + token * in[TOKEN];
          T* y = static_cast<T*>(operand.out) + batch * out[BATCH] + head * out[HEAD] + token * out[TOKEN];
          const int64_t row = job.positions.row(batch, token);
          const Arithmetic* cos = cos_table + batch * job.cos.batch_stride + row * job.cos.row_stride;
          const Arithmetic* sin = sin_table + batch * job.sin.batch_stride + row * job.sin.row_stride;
          const int64_t xs = in[CHANNEL], ys = out[CHANNEL], start = job.start;
          if (unit_stride) {
            rotate_row<T, interleaved>(x + start, y + start, 1, 1, cos, sin, job.pairs, sign);
          } else {
            rotate_gapped_row<T, interleaved>(x + start * xs, y + start * ys, xs, ys, cos, sin, job.pairs, sign);
          }
          if (!job.in_place) {
            copy_channels(x, y, xs, ys, 0, start);
            copy_channels(x, y, xs, ys, start + 2 * job.pairs, channels);
          }
        }
      }
    }
  }
}

// The same source compiled for several instruction sets; the machine's best is chosen once, at load time.
enum class Level : int { PORTABLE, AVX2, AVX512 };

template <Level level, class T, bool interleaved>
struct Compiled {
  static void units(const Job& job, int64_t begin, int64_t end) { rotate_units<T, interleaved>(job, begin, end); }
};

#if defined(__x86_64__)
template <class T, bool interleaved>
struct Compiled<Level::AVX2, T, interleaved> {
  __attribute__((target("avx2"))) static void units(const Job& job, int64_t begin, int64_t end) {
    rotate_units<T, interleaved>(job, begin, end);
  }
};
template <class T, bool interleaved>
struct Compiled<Level::AVX512, T, interleaved> {
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) static void units(
      const Job& job, int64_t begin, int64_t end) {
    rotate_units<T, interleaved>(job, begin, end);
  }
};
#endif

Level best_level() {
#if defined(__x86_64__)
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl"))
    return Level::AVX512;
  if (__builtin_cpu_supports("avx2")) return Level::AVX2;
#endif
  return Level::PORTABLE;
}

Level level = best_level();

using Units = void (*)(const Job&, int64_t, int64_t);

template <class T, bool interleaved>
Units compiled_units() {
  switch (level) {
    case Level::AVX512:
      return Compiled<Level::AVX512, T, interleaved>::units;
    case Level::AVX2:
      return Compiled<Level::AVX2, T, interleaved>::units;
    default:
      return Compiled<Level::PORTABLE, T, interleaved>::units;
  }
}

template <class T>
Units compiled_units(bool interleaved) {
  return interleaved ? compiled_units<T, true>() : compiled_units<T, false>();
}

Units units_for(ScalarType dtype, bool interleaved) {
  switch (dtype) {
    case ScalarType::Double:
      return compiled_units<double>(interleaved);
    case ScalarType::Half:
      return compiled_units<Half>(interleaved);
    case ScalarType::BFloat16:
      return compiled_units<BFloat16>(interleaved);
    default:
      return compiled_units<float>(interleaved);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Checks. A refusal is std::invalid_argument, which Python sees as ValueError.

template <class... Parts>
void require(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream message;
  message << "posenc: ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

std::string shape(const Tensor& tensor) {
  std::ostringstream text;
  text << "(";
  for (int64_t i = 0; i < tensor.dim(); ++i) text << (i ? ", " : "") << tensor.size(i);
  text << ")";
  return text.str();
}

struct Arguments {
  const Tensor &q, &k, &cos, &sin;
  const std::optional<Tensor>& positions;
  int64_t offset, start, token_dim;
  bool interleaved, inverse;
};

std::array<int64_t, 4> by_axis(const torch::headeronly::IntHeaderOnlyArrayRef& values, int64_t token_dim) {
  return {values[0], values[token_dim == 1 ? 2 : 1], values[token_dim], values[3]};
}

ScalarType check_operands(const Arguments& args) {
  require(args.token_dim == 1 || args.token_dim == 2, "got token_dim ", args.token_dim, ", expected 1 or 2.");
  for (const auto& [name, x] : {std::pair{"q", &args.q}, std::pair{"k", &args.k}}) {
    require(x->is_cpu(), name, " is not on the CPU; all tensors must be on one device.");
    require(x->dim() == 4, name, " has shape ", shape(*x), ", expected 4 dimensions.");
  }
  const ScalarType dtype = args.q.scalar_type();
  require(dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::Half ||
              dtype == ScalarType::BFloat16,
          "q has a dtype that cannot be rotated, expected float32, float64, float16 or bfloat16.");
  require(args.k.scalar_type() == dtype, "k has another dtype than q, expected the same; rotate them one by one.");
  require(args.q.size(0) == args.k.size(0) && args.q.size(args.token_dim) == args.k.size(args.token_dim), "q has shape ",
          shape(args.q), " and k ", shape(args.k), ", expected the same batch and number of tokens; rotate them one by one.");
  return dtype;
}

void check_tables(const Arguments& args, ScalarType dtype) {
  const ScalarType arithmetic = dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const auto& [name, table] : {std::pair{"cos", &args.cos}, std::pair{"sin", &args.sin}}) {
    require(table->is_cpu(), name, " is not on the CPU; all tensors must be on one device.");
    require(table->dim() == 2 || table->dim() == 3, name, " has shape ", shape(*table),
            ", expected (rows, pairs) or (batch, rows, pairs).");
    require(table->scalar_type() == arithmetic, name,
            " has the wrong dtype, expected float64 for float64 and float32 for all others.");
    require(table->size(-1) <= 1 || table->stride(-1) == 1, name,
            " has a gap between channels, expected a last stride of 1; call contiguous() on it.");
    require(table->dim() == 2 || table->size(0) == 1 || table->size(0) == args.q.size(0), name, " has shape ",
            shape(*table), ", expected a batch of 1 or ", args.q.size(0), ".");
  }
  require(args.cos.dim() == args.sin.dim() && std::equal(args.cos.sizes().begin(), args.cos.sizes().end(), args.sin.sizes().begin()),
          "cos has shape ", shape(args.cos), " and sin ", shape(args.sin), ", expected the same.");
  const int64_t pairs = args.cos.size(-1);
  for (const auto& [name, x] : {std::pair{"q", &args.q}, std::pair{"k", &args.k}}) {
    const int64_t channels = x->size(3);
    require(args.start >= 0 && args.start <= channels && pairs <= (channels - args.start) / 2, "got ", pairs,
            " pairs of channels from channel ", args.start, " on, expected them to fit into the ", channels,
            " channels of ", name, ".");
  }
}

Positions check_positions(const Arguments& args) {
  const int64_t batch = args.q.size(0), tokens = args.q.size(args.token_dim), rows = args.cos.size(-2);
  if (!args.positions.has_value()) {
    require(args.offset >= 0 && tokens <= rows && args.offset <= rows - tokens, "got tokens at rows ", args.offset, " to ",
            args.offset + tokens - 1, " of a table of ", rows, " rows, expected rows within it; make a longer table.");
    return {nullptr, false, 0, 0, args.offset};
  }
  const Tensor& tensor = *args.positions;
  require(args.offset == 0, "got positions and offset ", args.offset, ", expected one of the two; add the offset.");
  require(tensor.is_cpu(), "positions are not on the CPU; all tensors must be on one device.");
  const bool wide = tensor.scalar_type() == ScalarType::Long;
  require(wide || tensor.scalar_type() == ScalarType::Int, "positions must be int64 or int32.");
  const bool per_batch = tensor.dim() == 2;
  require(tensor.dim() == 1 || per_batch, "positions have shape ", shape(tensor), ", expected (seq,) or (batch, seq).");
  require(tensor.size(-1) == tokens && (!per_batch || tensor.size(0) == batch || tensor.size(0) == 1),
          "positions have shape ", shape(tensor), ", expected (", tokens, ") or (", batch, ", ", tokens, ").");
  const bool shared = !per_batch || tensor.size(0) == 1;
  const Positions positions{tensor.const_data_ptr(), wide, shared ? 0 : tensor.stride(0), tensor.stride(-1), 0};
  for (int64_t b = 0; b < (shared ? std::min<int64_t>(batch, 1) : batch); ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t row = positions.row(b, t);
      require(row >= 0 && row < rows, "got position ", row, " at token ", t, ", expected 0 to ", rows - 1,
              ", the rows of the table; make a longer table.");
    }
  }
  return positions;
}

// No element of x shares memory with another: sorted by stride, each axis steps over all that lies within it.
bool elements_are_distinct(const Tensor& x) {
  std::array<std::pair<int64_t, int64_t>, 4> axes;
  for (int64_t i = 0; i < 4; ++i) axes[i] = {x.stride(i), x.size(i)};
  std::sort(axes.begin(), axes.end());
  int64_t extent = 0;
  for (const auto& [stride, size] : axes) {
    if (size == 0) return true;
    if (size == 1) continue;
    if (stride <= extent) return false;
    extent += stride * (size - 1);
  }
  return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// The operators.

constexpr int64_t SERIAL_ELEMENTS = 1 << 15;  // below this a thread costs more than it brings (as in ATen)

void run(const Arguments& args, ScalarType dtype, const Positions& positions, std::array<Operand, 2> operands, bool in_place) {
  Job job{};
  job.operands = operands;
  const auto table = [](const Tensor& t) {
    return Table{t.const_data_ptr(), t.dim() == 3 && t.size(0) > 1 ? t.stride(0) : 0, t.stride(-2)};
  };
  job.cos = table(args.cos);
  job.sin = table(args.sin);
  job.positions = positions;
  job.start = args.start;
  job.pairs = args.cos.size(-1);
  job.inverse = args.inverse;
  job.in_place = in_place;
  const int64_t batch = operands[0].size[BATCH];
  job.tokens = operands[0].size[TOKEN];
  const int64_t elements = args.q.numel() + args.k.numel();
  if (elements == 0) return;
  // A tile's rows of the table stay in the first cache while all heads pass; every thread gets several tiles.
  const int64_t threads = torch::stable::get_num_threads();
  job.tile = std::clamp<int64_t>(batch * job.tokens / (4 * threads), 1, 32);
  job.tiles = (job.tokens + job.tile - 1) / job.tile;
  const int64_t units = batch * job.tiles;
  const Units body = units_for(dtype, args.interleaved);
  if (elements <= SERIAL_ELEMENTS || threads == 1) {
    body(job, 0, units);
  } else {
    const int64_t grain = std::max<int64_t>(1, SERIAL_ELEMENTS * units / elements);
    torch::stable::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) { body(job, begin, end); });
  }
}

Operand operand(const Tensor& in, const void* from, const Tensor& out, void* to, int64_t token_dim) {
  return {from, to, by_axis(in.sizes(), token_dim), by_axis(in.strides(), token_dim), by_axis(out.strides(), token_dim)};
}

// A fresh tensor of x's shape, dense, in memory order (0, 1, 2, 3) or (0, 2, 1, 3), whichever x is in.
Tensor fresh(const Tensor& x) {
  const int64_t n1 = x.size(1), n2 = x.size(2), n3 = x.size(3);
  const bool swapped = x.stride(1) < x.stride(2);
  const std::array<int64_t, 4> size{x.size(0), n1, n2, n3};
  const std::array<int64_t, 4> stride{n1 * n2 * n3, swapped ? n3 : n2 * n3, swapped ? n1 * n3 : n3, 1};
  AtenTensorHandle handle = nullptr;
  int32_t dtype = 0;
  TORCH_ERROR_CODE_CHECK(aoti_torch_get_dtype(x.get(), &dtype));
  TORCH_ERROR_CODE_CHECK(
      aoti_torch_empty_strided(4, size.data(), stride.data(), dtype, aoti_torch_device_type_cpu(), 0, &handle));
  return Tensor(handle);
}

// Fresh memory costs a fault for each page: with pages of 2 MiB a large result costs less than its arithmetic.
void use_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
  constexpr uintptr_t page = uintptr_t(2) << 20;
  const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
  const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + uintptr_t(bytes)) / page * page;
  if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: may be refused
#endif
}

std::tuple<Tensor, Tensor> rotate(Tensor q, Tensor k, Tensor cos, Tensor sin, std::optional<Tensor> positions, int64_t offset,
                                  int64_t start, int64_t token_dim, bool interleaved, bool inverse) {
  const Arguments args{q, k, cos, sin, positions, offset, start, token_dim, interleaved, inverse};
  const ScalarType dtype = check_operands(args);
  check_tables(args, dtype);
  const Positions checked = check_positions(args);
  Tensor q_out = fresh(q), k_out = fresh(k);
  void *q_to = q_out.mutable_data_ptr(), *k_to = k_out.mutable_data_ptr();
  use_huge_pages(q_to, q.numel() * int64_t(q.element_size()));
  use_huge_pages(k_to, k.numel() * int64_t(k.element_size()));
  run(args, dtype, checked,
      {operand(q, q.const_data_ptr(), q_out, q_to, token_dim), operand(k, k.const_data_ptr(), k_out, k_to, token_dim)}, false);
  return {q_out, k_out};
}

void rotate_(Tensor q, Tensor k, Tensor cos, Tensor sin, std::optional<Tensor> positions, int64_t offset, int64_t start,
             int64_t token_dim, bool interleaved, bool inverse) {
  const Arguments args{q, k, cos, sin, positions, offset, start, token_dim, interleaved, inverse};
  const ScalarType dtype = check_operands(args);
  check_tables(args, dtype);
  const Positions checked = check_positions(args);
  require(elements_are_distinct(q), "q has elements that share memory (it was expanded?); in place, clone() it first.");
  require(elements_are_distinct(k), "k has elements that share memory (it was expanded?); in place, clone() it first.");
  void *q_to = q.mutable_data_ptr(), *k_to = k.mutable_data_ptr();
  require(q_to != k_to || q.numel() == 0 || k.numel() == 0, "q and k are the same memory; in place, rotate it once.");
  run(args, dtype, checked, {operand(q, q_to, q, q_to, token_dim), operand(k, k_to, k, k_to, token_dim)}, true);
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(posenc, CPU, library) {
  library.impl("_rotate", TORCH_BOX(&rotate));
  library.impl("_rotate_", TORCH_BOX(&rotate_));
}

// Which instruction set is used, and a way for tests to ask for a lesser one; 0 portable, 1 AVX2, 2 AVX-512.
extern "C" __attribute__((visibility("default"))) int posenc_rotate_level() { return int(level); }
extern "C" __attribute__((visibility("default"))) int posenc_rotate_set_level(int wanted) {
  level = Level(std::clamp(wanted, 0, int(best_level())));
  return int(level);
}

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
  to->bits = uint16_t(x != x ? 0x7fc0u : rounded);
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
  int64_t start, pairs, tokens;
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

// Tokens whose rows of the table stay in the second cache (512 KiB for 64 pairs in float) while all heads pass.
constexpr int64_t TILE = 1024;
// Heads that use a row of the table while it is in the first cache. Each is a stream of its own in memory, and head
// strides are often powers of two, which fall on the same cache sets: more than two streams at once were slower.
constexpr int64_t GROUP = 2;
// How many tokens ahead a row is asked for. The processor foresees one stream of whole rows, but not two heads by turns,
// and least of all slices of rows; asking takes a third off a plain rotation in place, and two thirds off a partial one.
constexpr int64_t AHEAD = 8;

template <class T>
INLINE void ask_for(const T* begin, const T* end) {
  const char *from = reinterpret_cast<const char*>(begin), *to = reinterpret_cast<const char*>(end);
  for (; from < to; from += 64) __builtin_prefetch(from);
}

template <class T, bool interleaved>
INLINE void rotate_tile(const Job& job, const Operand& operand, int64_t batch, int64_t first, int64_t last) {
  using Arithmetic = typename ArithmeticOf<T>::type;
  const Arithmetic sign = job.inverse ? -1 : 1;
  const auto &in = operand.in_stride, &out = operand.out_stride;
  const int64_t xs = in[CHANNEL], ys = out[CHANNEL], start = job.start, end = job.start + 2 * job.pairs;
  const auto* cos_table = static_cast<const Arithmetic*>(job.cos.data) + batch * job.cos.batch_stride;
  const auto* sin_table = static_cast<const Arithmetic*>(job.sin.data) + batch * job.sin.batch_stride;
  const int64_t heads = operand.size[HEAD], group = in[HEAD] < in[TOKEN] ? heads : GROUP;  // heads innermost: as they lie
  for (int64_t first_head = 0; first_head < heads; first_head += group) {
    const int64_t last_head = std::min(first_head + group, heads);
    for (int64_t token = first; token < last; ++token) {
      const int64_t row = job.positions.row(batch, token);
      const Arithmetic* cos = cos_table + row * job.cos.row_stride;
      const Arithmetic* sin = sin_table + row * job.sin.row_stride;
      for (int64_t head = first_head; head < last_head; ++head) {
        const T* x = static_cast<const T*>(operand.in) + batch * in[BATCH] + head * in[HEAD] + token * in[TOKEN];
        T* y = static_cast<T*>(operand.out) + batch * out[BATCH] + head * out[HEAD] + token * out[TOKEN];
        if (xs == 1 && ys == 1) {
          if (token + AHEAD < last) {
            const T* later = x + AHEAD * in[TOKEN];
            job.in_place ? ask_for(later + start, later + end) : ask_for(later, later + operand.size[CHANNEL]);
          }
          rotate_row<T, interleaved>(x + start, y + start, 1, 1, cos, sin, job.pairs, sign);
        } else {
          rotate_gapped_row<T, interleaved>(x + start * xs, y + start * ys, xs, ys, cos, sin, job.pairs, sign);
        }
        if (!job.in_place) {
          copy_channels(x, y, xs, ys, 0, start);
          copy_channels(x, y, xs, ys, end, operand.size[CHANNEL]);
        }
      }
    }
  }
}

// Tokens are counted through the batch: begin and end are batch * tokens + token.
template <class T, bool interleaved>
INLINE void rotate_tokens(const Job& job, int64_t begin, int64_t end) {
  while (begin < end) {
    const int64_t batch = begin / job.tokens, first = begin % job.tokens;
    const int64_t last = std::min({first + (end - begin), first + TILE, job.tokens});
    for (const Operand& operand : job.operands) rotate_tile<T, interleaved>(job, operand, batch, first, last);
    begin += last - first;
  }
}

// The same source compiled for several instruction sets; the machine's best is chosen once, at load time.
enum class Level : int { PORTABLE, AVX2, AVX512 };

template <Level level, class T, bool interleaved>
struct Compiled {
  static void tokens(const Job& job, int64_t begin, int64_t end) { rotate_tokens<T, interleaved>(job, begin, end); }
};

#if defined(__x86_64__)
template <class T, bool interleaved>
struct Compiled<Level::AVX2, T, interleaved> {
  __attribute__((target("avx2"))) static void tokens(const Job& job, int64_t begin, int64_t end) {
    rotate_tokens<T, interleaved>(job, begin, end);
  }
};
template <class T, bool interleaved>
struct Compiled<Level::AVX512, T, interleaved> {
  __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,prefer-vector-width=512"))) static void tokens(
      const Job& job, int64_t begin, int64_t end) {
    rotate_tokens<T, interleaved>(job, begin, end);
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

using Body = void (*)(const Job&, int64_t, int64_t);

template <class T, bool interleaved>
Body compiled() {
  switch (level) {
    case Level::AVX512:
      return Compiled<Level::AVX512, T, interleaved>::tokens;
    case Level::AVX2:
      return Compiled<Level::AVX2, T, interleaved>::tokens;
    default:
      return Compiled<Level::PORTABLE, T, interleaved>::tokens;
  }
}

template <class T>
Body compiled(bool interleaved) {
  return interleaved ? compiled<T, true>() : compiled<T, false>();
}

Body body_for(ScalarType dtype, bool interleaved) {
  switch (dtype) {
    case ScalarType::Double:
      return compiled<double>(interleaved);
    case ScalarType::Half:
      return compiled<Half>(interleaved);
    case ScalarType::BFloat16:
      return compiled<BFloat16>(interleaved);
    default:
      return compiled<float>(interleaved);
  }
}

// ---------------------------------------------------------------------------------------------------------------------
// Checks. A refusal is std::invalid_argument, which Python sees as ValueError.

template <class... Parts>
[[noreturn]] __attribute__((noinline, cold)) void refuse(const Parts&... parts) {
  std::ostringstream message;
  message << "rotate: ";
  (message << ... << parts);
  throw std::invalid_argument(message.str());
}

// A macro, so that the words are put together only when they are needed.
#define REQUIRE(condition, ...)              \
  do {                                       \
    if (!(condition)) refuse(__VA_ARGS__);   \
  } while (false)

// What there is to know about a tensor, asked for once: each question to PyTorch is a call across the ABI.
struct View {
  const char* name;
  int64_t dim;
  const int64_t *size, *stride;
  ScalarType dtype;
  bool on_cpu;

  View(const char* name_, const Tensor& tensor)
      : name(name_),
        dim(tensor.dim()),
        size(tensor.sizes().data()),
        stride(tensor.strides().data()),
        dtype(tensor.scalar_type()),
        on_cpu(tensor.is_cpu()) {}

  int64_t numel() const {  // of an operand: check_operands saw that it fits
    return size[0] * size[1] * size[2] * size[3];
  }

  // Whether sizes can be multiplied in 64 bits, those of empty and of expanded tensors too.
  bool is_countable() const {
    int64_t product = 16;  // bytes, with room to spare
    for (int64_t i = 0; i < dim; ++i) {
      if (__builtin_mul_overflow(product, std::max<int64_t>(size[i], 1), &product)) return false;
    }
    return true;
  }
};

std::ostream& operator<<(std::ostream& text, const View& view) {
  text << view.name << " of shape (";
  for (int64_t i = 0; i < view.dim; ++i) text << (i ? ", " : "") << view.size[i];
  return text << ")";
}

struct Arguments {
  View q, k, cos, sin;
  int64_t offset, start, token_dim;
  bool interleaved, inverse;

  int64_t batch() const { return q.size[0]; }
  int64_t tokens() const { return q.size[token_dim]; }
  int64_t rows() const { return cos.size[cos.dim - 2]; }
  int64_t pairs() const { return cos.size[cos.dim - 1]; }
};

void check_operands(const Arguments& args) {
  const View &q = args.q, &k = args.k;
  REQUIRE(args.token_dim == 1 || args.token_dim == 2, "got token_dim ", args.token_dim, ", expected 1 or 2.");
  REQUIRE(q.on_cpu && k.on_cpu, "got q or k on another device, expected all tensors on the CPU.");
  REQUIRE(q.dim == 4 && k.dim == 4, "got ", q, " and ", k, ", expected 4 dimensions.");
  REQUIRE(q.is_countable() && k.is_countable(), "got ", q, " and ", k, ", expected fewer than 2**59 elements.");
  REQUIRE(q.dtype == ScalarType::Float || q.dtype == ScalarType::Double || q.dtype == ScalarType::Half ||
              q.dtype == ScalarType::BFloat16,
          "got q of another dtype, expected float32, float64, float16 or bfloat16.");
  REQUIRE(k.dtype == q.dtype, "got q and k of different dtypes, expected the same; rotate them one by one.");
  REQUIRE(q.size[0] == k.size[0] && q.size[args.token_dim] == k.size[args.token_dim], "got ", q, " and ", k,
          ", expected the same batch and number of tokens; rotate them one by one.");
}

void check_tables(const Arguments& args) {
  const ScalarType arithmetic = args.q.dtype == ScalarType::Double ? ScalarType::Double : ScalarType::Float;
  for (const View* table : {&args.cos, &args.sin}) {
    REQUIRE(table->on_cpu, "got ", *table, " on another device, expected all tensors on the CPU.");
    REQUIRE(table->dim == 2 || table->dim == 3, "got ", *table, ", expected (rows, pairs) or (batch, rows, pairs).");
    REQUIRE(table->dtype == arithmetic, "got ", *table,
            " of the wrong dtype, expected float64 for float64 and float32 for all others.");
    REQUIRE(table->size[table->dim - 1] <= 1 || table->stride[table->dim - 1] == 1, "got ", *table,
            " with gaps between its channels, expected a last stride of 1; call contiguous() on it.");
    REQUIRE(table->dim == 2 || table->size[0] == 1 || table->size[0] == args.batch(), "got ", *table,
            ", expected a batch of 1 or ", args.batch(), ".");
  }
  REQUIRE(args.cos.dim == args.sin.dim && std::equal(args.cos.size, args.cos.size + args.cos.dim, args.sin.size), "got ",
          args.cos, " and ", args.sin, ", expected the same shape.");
  for (const View* x : {&args.q, &args.k}) {
    const int64_t channels = x->size[3];
    REQUIRE(args.start >= 0 && args.start <= channels && args.pairs() <= (channels - args.start) / 2, "got ",
            args.pairs(), " pairs of channels from channel ", args.start, " on, expected them to fit into ", *x, ".");
  }
}

Positions check_positions(const Arguments& args, const std::optional<Tensor>& tensor) {
  const int64_t batch = args.batch(), tokens = args.tokens(), rows = args.rows();
  if (!tensor.has_value()) {
    REQUIRE(args.offset >= 0 && tokens <= rows && args.offset <= rows - tokens, "got ", tokens, " tokens from row ",
            args.offset, " on of a table of ", rows, " rows, expected rows within it; make a longer table.");
    return {nullptr, false, 0, 0, args.offset};
  }
  const View view("positions", *tensor);
  REQUIRE(args.offset == 0, "got positions and offset ", args.offset, ", expected one of the two; add the offset.");
  REQUIRE(view.on_cpu, "got positions on another device, expected all tensors on the CPU.");
  const bool wide = view.dtype == ScalarType::Long;
  REQUIRE(wide || view.dtype == ScalarType::Int, "got positions of another dtype, expected int64 or int32.");
  REQUIRE((view.dim == 1 || (view.dim == 2 && (view.size[0] == batch || view.size[0] == 1))) &&
              view.size[view.dim - 1] == tokens,
          "got ", view, ", expected (", tokens, ") or (", batch, ", ", tokens, ").");
  const bool shared = view.dim == 1 || view.size[0] == 1;
  const Positions positions{tensor->const_data_ptr(), wide, shared ? 0 : view.stride[0], view.stride[view.dim - 1], 0};
  for (int64_t b = 0; b < (shared ? std::min<int64_t>(batch, 1) : batch); ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t row = positions.row(b, t);
      REQUIRE(row >= 0 && row < rows, "got position ", row, " at token ", t, ", expected 0 to ", rows - 1,
              ", the rows of the table; make a longer table.");
    }
  }
  return positions;
}

// No element of x shares memory with another: sorted by stride, each axis steps over all that lies within it.
bool elements_are_distinct(const View& x) {
  if (x.numel() == 0) return true;
  std::array<std::pair<int64_t, int64_t>, 4> axes;
  for (int64_t i = 0; i < 4; ++i) axes[i] = {x.stride[i], x.size[i]};
  std::sort(axes.begin(), axes.end());
  int64_t extent = 0;
  for (const auto& [stride, size] : axes) {
    if (size == 1) continue;
    if (stride <= extent) return false;
    extent += stride * (size - 1);
  }
  return true;
}

// ---------------------------------------------------------------------------------------------------------------------
// The operators.

constexpr int64_t SERIAL_ELEMENTS = 1 << 15;  // below this a thread costs more than it brings (as in ATen)

void run(const Arguments& args, const Table& cos, const Table& sin, const Positions& positions,
         const std::array<Operand, 2>& operands, bool in_place) {
  const int64_t elements = args.q.numel() + args.k.numel(), batch = args.batch(), tokens = args.tokens();
  if (elements == 0) return;
  const Job job{operands, cos, sin, positions, args.start, args.pairs(), tokens, args.inverse, in_place};
  const Body body = body_for(args.q.dtype, args.interleaved);
  if (elements <= SERIAL_ELEMENTS) return body(job, 0, batch * tokens);
  const int64_t grain = std::max<int64_t>(1, SERIAL_ELEMENTS / (elements / (batch * tokens)));
  torch::stable::parallel_for(0, batch * tokens, grain, [&](int64_t begin, int64_t end) { body(job, begin, end); });
}

Table table(const View& view, const Tensor& tensor) {
  return {tensor.const_data_ptr(), view.dim == 3 && view.size[0] > 1 ? view.stride[0] : 0, view.stride[view.dim - 2]};
}

std::array<int64_t, 4> by_axis(const int64_t* values, int64_t token_dim) {
  return {values[0], values[3 - token_dim], values[token_dim], values[3]};
}

// A fresh tensor of x's shape, dense, in memory order (0, 1, 2, 3) or (0, 2, 1, 3), whichever x is in.
struct Fresh {
  std::array<int64_t, 4> stride;
  Tensor tensor;
  void* data;

  explicit Fresh(const View& x) : stride(dense(x)), tensor(allocate(x, stride)), data(tensor.mutable_data_ptr()) {
    const int64_t element = x.dtype == ScalarType::Double ? 8 : x.dtype == ScalarType::Float ? 4 : 2;
    use_huge_pages(data, x.numel() * element);
  }

  static std::array<int64_t, 4> dense(const View& x) {
    const int64_t first = x.size[1], second = x.size[2], channels = x.size[3];
    const bool swapped = x.stride[1] < x.stride[2];
    return {first * second * channels, swapped ? channels : second * channels, swapped ? first * channels : channels, 1};
  }

  static Tensor allocate(const View& x, const std::array<int64_t, 4>& stride) {
    AtenTensorHandle handle = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(4, x.size, stride.data(), shim_dtype(x.dtype),
                                                    aoti_torch_device_type_cpu(), 0, &handle));
    return Tensor(handle);
  }

  static int32_t shim_dtype(ScalarType dtype) {
    switch (dtype) {
      case ScalarType::Double:
        return aoti_torch_dtype_float64();
      case ScalarType::Half:
        return aoti_torch_dtype_float16();
      case ScalarType::BFloat16:
        return aoti_torch_dtype_bfloat16();
      default:
        return aoti_torch_dtype_float32();
    }
  }

  // Fresh memory costs a fault for each page: with pages of 2 MiB a large result costs less than its arithmetic.
  static void use_huge_pages(void* data, int64_t bytes) {
#if defined(__linux__) && defined(MADV_HUGEPAGE)
    constexpr uintptr_t page = uintptr_t(2) << 20;
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(data) + page - 1) / page * page;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(data) + uintptr_t(bytes)) / page * page;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);  // advice: may be refused
#endif
  }
};

std::tuple<Tensor, Tensor> rotate(const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin,
                                  const std::optional<Tensor>& positions, int64_t offset, int64_t start,
                                  int64_t token_dim, bool interleaved, bool inverse) {
  const Arguments args{{"q", q}, {"k", k}, {"cos", cos}, {"sin", sin}, offset, start, token_dim, interleaved, inverse};
  check_operands(args);
  check_tables(args);
  const Positions checked = check_positions(args, positions);
  const Fresh q_out(args.q), k_out(args.k);
  const auto operand = [&](const View& view, const Tensor& tensor, const Fresh& out) {
    return Operand{tensor.const_data_ptr(), out.data, by_axis(view.size, token_dim), by_axis(view.stride, token_dim),
                   by_axis(out.stride.data(), token_dim)};
  };
  run(args, table(args.cos, cos), table(args.sin, sin), checked,
      {operand(args.q, q, q_out), operand(args.k, k, k_out)}, false);
  return {q_out.tensor, k_out.tensor};
}

void rotate_(const Tensor& q, const Tensor& k, const Tensor& cos, const Tensor& sin,
             const std::optional<Tensor>& positions, int64_t offset, int64_t start, int64_t token_dim, bool interleaved,
             bool inverse) {
  const Arguments args{{"q", q}, {"k", k}, {"cos", cos}, {"sin", sin}, offset, start, token_dim, interleaved, inverse};
  check_operands(args);
  check_tables(args);
  const Positions checked = check_positions(args, positions);
  for (const View* x : {&args.q, &args.k}) {
    REQUIRE(elements_are_distinct(*x), "got ", *x,
            " with elements that share memory (was it expanded?), expected distinct ones to write in place; clone() it.");
  }
  void *q_data = q.mutable_data_ptr(), *k_data = k.mutable_data_ptr();
  REQUIRE(q_data != k_data || args.q.numel() == 0 || args.k.numel() == 0,
          "got q and k in the same memory, expected two tensors to write in place; rotate one of them.");
  const auto operand = [&](const View& view, void* data) {
    const auto stride = by_axis(view.stride, token_dim);
    return Operand{data, data, by_axis(view.size, token_dim), stride, stride};
  };
  run(args, table(args.cos, cos), table(args.sin, sin), checked, {operand(args.q, q_data), operand(args.k, k_data)}, true);
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

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
#include <type_traits>

#ifdef __linux__
#include <sys/mman.h>
#endif

#include "instructions.h"

namespace {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

// ---------------------------------------------------------------------------------------------------------------------
// Tokens: which rows share a row of the table, and in which order they are visited.

template <class T>
void rotate_tile(const Job& job, Rotate<T> dense, Rotate<T> gapped, const Operand& operand, int64_t batch, int64_t first,
                 int64_t last) {
  using Arithmetic = typename ArithmeticOf<T>::type;
  const auto &in = operand.in_stride, &out = operand.out_stride;
  const int64_t heads = operand.size[HEAD], group = in[HEAD] <= in[TOKEN] ? heads : GROUP;  // innermost: as they lie
  const Rotate<T> rotate = in[CHANNEL] == 1 && out[CHANNEL] == 1 ? dense : gapped;
  Slab<T> slab;
  slab.in_head = in[HEAD], slab.in_token = in[TOKEN], slab.in_channel = in[CHANNEL];
  slab.out_head = out[HEAD], slab.out_token = out[TOKEN], slab.out_channel = out[CHANNEL];
  slab.batch = batch, slab.first = first, slab.last = last;
  slab.start = job.start, slab.pairs = job.pairs, slab.channels = operand.size[CHANNEL];
  slab.cos = static_cast<const Arithmetic*>(job.cos.data) + batch * job.cos.batch_stride;
  slab.sin = static_cast<const Arithmetic*>(job.sin.data) + batch * job.sin.batch_stride;
  slab.cos_row = job.cos.row_stride, slab.sin_row = job.sin.row_stride;
  slab.positions = job.positions;
  slab.inverse = job.inverse, slab.in_place = job.in_place;
  for (int64_t head = 0; head < heads; head += group) {
    slab.in = static_cast<const T*>(operand.in) + batch * in[BATCH] + head * in[HEAD];
    slab.out = static_cast<T*>(operand.out) + batch * out[BATCH] + head * out[HEAD];
    slab.heads = std::min(group, heads - head);
    rotate(slab);
  }
}

// Tokens are counted through the batch: begin and end are batch * tokens + token.
template <class T, bool interleaved>
void rotate_tokens(const Job& job, int64_t begin, int64_t end) {
  const Rotate<T> dense = compiled<T, interleaved>(), gapped = rotate_gapped<T, interleaved>;
  while (begin < end) {
    const int64_t batch = begin / job.tokens, first = begin % job.tokens;
    const int64_t last = std::min({first + (end - begin), first + TILE, job.tokens});
    for (const Operand& operand : job.operands) rotate_tile<T>(job, dense, gapped, operand, batch, first, last);
    begin += last - first;
  }
}

using Body = void (*)(const Job&, int64_t, int64_t);

template <class T>
Body body(bool interleaved) {
  return interleaved ? rotate_tokens<T, true> : rotate_tokens<T, false>;
}

Body body_for(ScalarType dtype, bool interleaved) {
  switch (dtype) {
    case ScalarType::Double:
      return body<double>(interleaved);
    case ScalarType::Half:
      return body<Half>(interleaved);
    case ScalarType::BFloat16:
      return body<BFloat16>(interleaved);
    default:
      return body<float>(interleaved);
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
          "got ", view, ", expected (", tokens, ") or (", batch, ", ", tokens, ")",
          view.dim == 3 ? "; for rows and columns take AxialRoPE, MRoPE or MixedRoPE." : ".");
  const bool shared = view.dim == 1 || view.size[0] == 1;
  const Positions positions{tensor->const_data_ptr(), wide, shared ? 0 : view.stride[0], view.stride[view.dim - 1], 0};
  for (int64_t b = 0; b < (shared ? std::min<int64_t>(batch, 1) : batch); ++b) {
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t row = positions.row(b, t);
      REQUIRE(row >= 0, "got position ", row, " at token ", t, ", expected 0 or above; shift all positions by ",
              -uint64_t(row), " (only differences matter), and give padding any position of 0 or above.");
      REQUIRE(row < rows, "got position ", row, " at token ", t, ", expected 0 to ", rows - 1,
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

// Which instruction set is used, and a way for tests to ask for a lesser one; in the order of Level.
extern "C" __attribute__((visibility("default"))) int posenc_rotate_level() { return int(level); }
extern "C" __attribute__((visibility("default"))) int posenc_rotate_set_level(int wanted) {
  level = Level(std::clamp(wanted, 0, int(best_level())));
  return int(level);
}

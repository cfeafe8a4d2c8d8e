// What a call of attention must be like, and the problem that it is. A refusal is std::invalid_argument, which Python sees
// as ValueError.

#pragma once

#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>

#include <optional>
#include <sstream>
#include <stdexcept>

#include "problem.h"

namespace {

using namespace posenc_attention;

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

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

// The factor of query t stands at entry first + t.
void set_shares(Problem& p, const std::optional<Tensor>& factors, const std::optional<Tensor>& units, int64_t first) {
  REQUIRE(factors.has_value() == units.has_value() && (!units.has_value() || (p.table != nullptr && p.fades == nullptr)),
          "got factors or units alone or with fades, expected units with a table and factors.");
  if (!units.has_value()) return;
  REQUIRE(units->is_cpu() && units->scalar_type() == ScalarType::Float && units->dim() == 3 &&
              units->size(0) == p.heads && units->size(1) >= 1 && units->size(1) <= MOST_UNITS && units->size(2) == 3 &&
              units->is_contiguous(),
          "got units of shape ", Shape{*units}, ", expected contiguous float32 (", p.heads, ", 1 to ", MOST_UNITS,
          ", 3), on the CPU.");
  REQUIRE(factors->is_cpu() && factors->scalar_type() == ScalarType::Float && factors->dim() == 1 &&
              factors->is_contiguous() && factors->size(0) - first >= p.q_len,
          "got factors of shape ", Shape{*factors}, ", expected contiguous float32 (at least ", first + p.q_len,
          "), on the CPU.");
  p.units = static_cast<const float*>(units->const_data_ptr()), p.unit_count = units->size(1);
  p.factors = static_cast<const float*>(factors->const_data_ptr()) + first;
  p.skip = false;
}

constexpr int64_t MOST_COUNTS = 1 << 24;  // whole numbers of a float

Problem checked(const Tensor& q, const Tensor& k, const Tensor& v, double scale, const std::optional<Tensor>& table,
                int64_t zero, bool causal, int64_t window, const std::optional<Tensor>& mask,
                const std::optional<Tensor>& documents, const std::optional<Tensor>& sinks, bool skip,
                const std::optional<Tensor>& fades, const std::optional<Tensor>& factors,
                const std::optional<Tensor>& units, const std::optional<Tensor>& counted) {
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
  set_shares(p, factors, units, 0);
  if (counted.has_value()) {
    REQUIRE(counted->is_cpu() && counted->scalar_type() == ScalarType::Float && counted->dim() == 4 &&
                counted->size(0) == p.batch && counted->size(1) == p.heads && counted->size(2) == p.q_len &&
                counted->size(3) >= 1 && counted->size(3) <= MOST_COUNTS && counted->is_contiguous(),
            "got counted of shape ", Shape{*counted}, ", expected contiguous float32 (", p.batch, ", ", p.heads, ", ",
            p.q_len, ", 1 to ", MOST_COUNTS, " counts), on the CPU.");
    REQUIRE(causal && p.table == nullptr && p.fades == nullptr,
            "got counted without causal, or with a table or fades, expected it in a causal call, alone.");
    p.counted = static_cast<const float*>(counted->const_data_ptr()), p.counts = counted->size(3);
  }
  // Without a bias that falls, or a float mask that lifts what it holds down, there is nothing to prove.
  p.skip = skip && ((p.table != nullptr && p.units == nullptr) || p.fades != nullptr) && !p.mask_is_float;
  return p;
}

void set_counts(Problem& p, const Tensor& by_count) {
  REQUIRE(by_count.is_cpu() && by_count.scalar_type() == ScalarType::Float && by_count.dim() == 2 &&
              by_count.size(0) >= 1 && by_count.size(0) <= MOST_COUNTS && by_count.size(1) == p.q.channels &&
              by_count.is_contiguous(),
          "got a table of counts of shape ", Shape{by_count}, ", expected contiguous float32 (1 to ", MOST_COUNTS, ", ",
          p.q.channels, "), on the CPU.");
  p.by_count = static_cast<const float*>(by_count.const_data_ptr()), p.counts = by_count.size(0);
}

}  // namespace

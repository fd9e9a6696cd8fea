#include "ops/checks.h"

#include <cmath>

namespace lighthouse::ops {
namespace {

/// Names of the dimensions of q and of k and v, for messages.
struct Shapes {
  const char* query;
  const char* key;
  int64_t head_dimension;
  int64_t seq_dimension;
};
constexpr Shapes kByToken{"[batch, seq_len, num_heads, head_dim]", "[batch, seq_len, num_kv_heads, head_dim]", 2, 1};
constexpr Shapes kByRow{"[batch, num_heads, rows, head_dim]", "[batch, num_kv_heads, rows, head_dim]", 1, 2};

void check_rank(const char* operation, const char* name, const at::Tensor& x, const char* meaning) {
  TORCH_CHECK_VALUE(x.defined(), operation, ": ", name, " is an undefined tensor; it must be ", meaning);
  TORCH_CHECK_VALUE(x.dim() == 4, operation, ": ", name, " has ", x.dim(), " dimensions; it must be ", meaning);
  for (int64_t i = 0; i < 4; ++i) {
    TORCH_CHECK_VALUE(x.sym_size(i) >= 1, operation, ": ", name, " has shape ", x.sym_sizes(), "; it must be ", meaning,
                      " with no size zero");
  }
}

bool is_supported(at::ScalarType dtype) {
  return dtype == at::kFloat || dtype == at::kDouble || dtype == at::kBFloat16 || dtype == at::kHalf;
}

void check_elements(const char* operation, const char* name, const at::Tensor& x) {
  TORCH_CHECK_VALUE(is_supported(x.scalar_type()), operation, ": ", name, " is ", x.scalar_type(),
                    "; it must be Float, Double, BFloat16 or Half");
  TORCH_CHECK_VALUE(x.layout() == at::kStrided, operation, ": ", name, " has layout ", x.layout(), "; pass ", name,
                    ".to_dense()");
  TORCH_CHECK_VALUE(x.sym_size(3) == 1 || x.sym_stride(3) == 1, operation, ": the channels of ", name, " have stride ",
                    x.sym_stride(3), "; they must be contiguous (stride 1): pass ", name, ".contiguous()");
}

void check_same_kind(const char* operation, const char* name, const at::Tensor& x, const at::Tensor& q) {
  TORCH_CHECK_VALUE(x.scalar_type() == q.scalar_type(), operation, ": ", name, " is ", x.scalar_type(), ", but q is ",
                    q.scalar_type(), "; cast q, k and v to one dtype");
  TORCH_CHECK_VALUE(x.device() == q.device(), operation, ": ", name, " is on ", x.device(), ", but q is on ",
                    q.device(), "; move q, k and v to one device");
}

Sizes check_heads_of_three(const char* operation, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const Shapes& shapes) {
  check_rank(operation, "q", q, shapes.query);
  check_rank(operation, "k", k, shapes.key);
  check_rank(operation, "v", v, shapes.key);
  check_elements(operation, "q", q);
  check_same_kind(operation, "k", k, q);
  check_same_kind(operation, "v", v, q);
  check_elements(operation, "k", k);
  check_elements(operation, "v", v);
  for (const int64_t dimension : {int64_t{0}, shapes.seq_dimension, int64_t{3}}) {
    TORCH_CHECK_VALUE(k.sym_size(dimension) == q.sym_size(dimension), operation, ": k has shape ", k.sym_sizes(),
                      ", but q has ", q.sym_sizes(), "; they may differ in the number of heads (dimension ",
                      shapes.head_dimension, ") only");
  }
  TORCH_CHECK_VALUE(v.sym_sizes().equals(k.sym_sizes()), operation, ": v has shape ", v.sym_sizes(), ", but k has ",
                    k.sym_sizes(), "; they must be equal");
  const c10::SymInt num_heads = q.sym_size(shapes.head_dimension);
  const c10::SymInt num_kv_heads = k.sym_size(shapes.head_dimension);
  TORCH_CHECK_VALUE(num_heads % num_kv_heads == 0, operation, ": num_heads ", num_heads,
                    " is not a multiple of num_kv_heads ", num_kv_heads,
                    "; every KV head must serve the same number of query heads");
  return {q.sym_size(0), num_heads, num_kv_heads, q.sym_size(3), fixed_size(q, shapes.seq_dimension)};
}

}  // namespace

Sizes check_qkv(const char* operation, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return check_heads_of_three(operation, q, k, v, kByToken);
}

Sizes check_rows(const char* operation, const at::Tensor& q_rows, const at::Tensor& k_rows, const at::Tensor& v_rows) {
  return check_heads_of_three(operation, q_rows, k_rows, v_rows, kByRow);
}

void check_heads(const char* operation, const char* name, const at::Tensor& x) {
  check_rank(operation, name, x, "a 4-dimensional tensor");
  check_elements(operation, name, x);
}

void check_shape(const char* operation, const char* name, const at::Tensor& x, c10::SymIntArrayRef shape,
                 const char* meaning, const at::Tensor& like) {
  TORCH_CHECK_VALUE(x.defined(), operation, ": ", name, " is an undefined tensor; it must be ", meaning);
  TORCH_CHECK_VALUE(x.sym_sizes().equals(shape), operation, ": ", name, " has shape ", x.sym_sizes(), "; it must be ",
                    meaning, ", here ", shape);
  TORCH_CHECK_VALUE(x.device() == like.device(), operation, ": ", name, " is on ", x.device(),
                    ", but other arguments are on ", like.device(), "; move all to one device");
}

void check_dtype(const char* operation, const char* name, const at::Tensor& x, at::ScalarType dtype) {
  const char* cast = dtype == at::kInt ? "torch.int32" : "torch.float32";
  TORCH_CHECK_VALUE(x.scalar_type() == dtype, operation, ": ", name, " is ", x.scalar_type(), "; it must be ", dtype,
                    ": pass ", name, ".to(", cast, ")");
}

void check_scores(const char* operation, const at::Tensor& s_qk, const at::Tensor& s_kq) {
  constexpr const char* kMeaning = "[batch, num_kv_heads, seq_len]";
  TORCH_CHECK_VALUE(s_qk.defined() && s_qk.dim() == 3, operation, ": s_qk has ", s_qk.defined() ? s_qk.dim() : 0,
                    " dimensions; it must be ", kMeaning);
  for (int64_t i = 0; i < 3; ++i) {
    TORCH_CHECK_VALUE(s_qk.sym_size(i) >= 1, operation, ": s_qk has shape ", s_qk.sym_sizes(), "; it must be ",
                      kMeaning, " with no size zero");
  }
  check_dtype(operation, "s_qk", s_qk, at::kFloat);
  check_shape(operation, "s_kq", s_kq, s_qk.sym_sizes(), "as s_qk", s_qk);
  check_dtype(operation, "s_kq", s_kq, at::kFloat);
}

void check_softmax_scale(const char* operation, std::optional<double> softmax_scale) {
  TORCH_CHECK_VALUE(!softmax_scale || (std::isfinite(*softmax_scale) && *softmax_scale > 0), operation,
                    ": softmax_scale is ", softmax_scale.value_or(0),
                    "; it must be positive and finite, or left out for 1 / sqrt(head_dim)");
}

void check_score_config(const char* operation, const ScoreConfig& config, bool has_gate) {
  TORCH_CHECK_VALUE(config.scorer == "norm" || config.scorer == "dilated" || config.scorer == "gla", operation,
                    ": scorer is '", config.scorer, "'; it must be norm, dilated or gla");
  TORCH_CHECK_VALUE(config.dilation >= 1, operation, ": dilation is ", config.dilation, "; it must be at least 1");
  const bool needs_gate = config.scorer == "gla";
  TORCH_CHECK_VALUE(has_gate || !needs_gate, operation,
                    ": scorer is 'gla', but no gate is given; pass the log forget gate [batch, seq_len, num_heads]");
  TORCH_CHECK_VALUE(!has_gate || needs_gate, operation, ": a gate is given, but scorer is '", config.scorer,
                    "'; only scorer 'gla' takes one");
}

SequencePlan checked_plan(const char* operation, const SelectionConfig& config, int64_t seq_len,
                          const c10::SymInt& batch, at::OptionalIntArrayRef cu_seqlens) {
  if (!cu_seqlens) {
    return restate_errors([&] { return make_plan(config, seq_len, {}, operation); });
  }
  TORCH_CHECK_VALUE(batch == 1, operation, ": cu_seqlens is given with batch ", batch,
                    "; packed documents need batch 1: concatenate the sequences along the tokens");
  TORCH_CHECK_VALUE(!cu_seqlens->empty(), operation, ": cu_seqlens has 0 elements; it must hold the offsets 0, ..., ",
                    seq_len, ", or be left out");
  return restate_errors([&] {
    return make_plan(config, seq_len, {cu_seqlens->data(), cu_seqlens->size()}, operation);
  });
}

DType stage_dtype(const at::Tensor& x) {
  switch (x.scalar_type()) {
    case at::kFloat:
      return DType::kFloat32;
    case at::kDouble:
      return DType::kFloat64;
    case at::kBFloat16:
      return DType::kBFloat16;
    case at::kHalf:
      return DType::kFloat16;
    default:
      TORCH_INTERNAL_ASSERT(false, "dtype ", x.scalar_type(), " was not checked");
  }
}

int64_t fixed_size(const at::Tensor& x, int64_t dimension) {
  return x.sym_size(dimension).guard_int(__FILE__, __LINE__);
}

}  // namespace lighthouse::ops

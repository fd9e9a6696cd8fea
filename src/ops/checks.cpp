#include "ops/checks.h"

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

void check_rank(const char* operation, const char* name, const Tensor& x, const char* meaning) {
  LIGHTHOUSE_CHECK_VALUE(x.defined(), operation, ": ", name, " is an undefined tensor; it must be ", meaning);
  LIGHTHOUSE_CHECK_VALUE(x.dim() == 4, operation, ": ", name, " has ", x.dim(), " dimensions; it must be ", meaning);
  for (int64_t i = 0; i < 4; ++i) {
    LIGHTHOUSE_CHECK_VALUE(size(x, i) >= 1, operation, ": ", name, " has shape ", sizes(x), "; it must be ", meaning,
                           " with no size zero");
  }
}

bool is_supported(ScalarType dtype) {
  return dtype == ScalarType::Float || dtype == ScalarType::Double || dtype == ScalarType::BFloat16 ||
         dtype == ScalarType::Half;
}

void check_elements(const char* operation, const char* name, const Tensor& x) {
  LIGHTHOUSE_CHECK_VALUE(is_supported(x.scalar_type()), operation, ": ", name, " is ", x.scalar_type(),
                         "; it must be Float, Double, BFloat16 or Half");
  LIGHTHOUSE_CHECK_VALUE(is_strided(x), operation, ": ", name, " has layout ", layout_name(x), "; pass ", name,
                         ".to_dense()");
  LIGHTHOUSE_CHECK_VALUE(size(x, 3) == 1 || stride(x, 3) == 1, operation, ": the channels of ", name, " have stride ",
                         stride(x, 3), "; they must be contiguous (stride 1): pass ", name, ".contiguous()");
}

void check_same_kind(const char* operation, const char* name, const Tensor& x, const Tensor& q) {
  LIGHTHOUSE_CHECK_VALUE(x.scalar_type() == q.scalar_type(), operation, ": ", name, " is ", x.scalar_type(),
                         ", but q is ", q.scalar_type(), "; cast q, k and v to one dtype");
  LIGHTHOUSE_CHECK_VALUE(device(x) == device(q), operation, ": ", name, " is on ", device(x), ", but q is on ",
                         device(q), "; move q, k and v to one device");
}

Sizes check_heads_of_three(const char* operation, const Tensor& q, const Tensor& k, const Tensor& v,
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
    LIGHTHOUSE_CHECK_VALUE(size(k, dimension) == size(q, dimension), operation, ": k has shape ", sizes(k),
                           ", but q has ", sizes(q), "; they may differ in the number of heads (dimension ",
                           shapes.head_dimension, ") only");
  }
  LIGHTHOUSE_CHECK_VALUE(sizes(v).equals(sizes(k)), operation, ": v has shape ", sizes(v), ", but k has ", sizes(k),
                         "; they must be equal");
  const Size num_heads = size(q, shapes.head_dimension);
  const Size num_kv_heads = size(k, shapes.head_dimension);
  LIGHTHOUSE_CHECK_VALUE(num_heads % num_kv_heads == 0, operation, ": num_heads ", num_heads,
                         " is not a multiple of num_kv_heads ", num_kv_heads,
                         "; every KV head must serve the same number of query heads");
  return {size(q, 0), num_heads, num_kv_heads, size(q, 3), fixed_size(q, shapes.seq_dimension)};
}

}  // namespace

Sizes check_qkv(const char* operation, const Tensor& q, const Tensor& k, const Tensor& v) {
  return check_heads_of_three(operation, q, k, v, kByToken);
}

Sizes check_rows(const char* operation, const Tensor& q_rows, const Tensor& k_rows, const Tensor& v_rows) {
  return check_heads_of_three(operation, q_rows, k_rows, v_rows, kByRow);
}

void check_heads(const char* operation, const char* name, const Tensor& x) {
  check_rank(operation, name, x, "a 4-dimensional tensor");
  check_elements(operation, name, x);
}

void check_shape(const char* operation, const char* name, const Tensor& x, SizesView shape, const char* meaning,
                 const Tensor& like) {
  LIGHTHOUSE_CHECK_VALUE(x.defined(), operation, ": ", name, " is an undefined tensor; it must be ", meaning);
  LIGHTHOUSE_CHECK_VALUE(sizes(x).equals(shape), operation, ": ", name, " has shape ", sizes(x), "; it must be ",
                         meaning, ", here ", shape);
  LIGHTHOUSE_CHECK_VALUE(device(x) == device(like), operation, ": ", name, " is on ", device(x),
                         ", but other arguments are on ", device(like), "; move all to one device");
}

void check_dtype(const char* operation, const char* name, const Tensor& x, ScalarType dtype) {
  const char* cast = dtype == ScalarType::Int ? "torch.int32" : "torch.float32";
  LIGHTHOUSE_CHECK_VALUE(x.scalar_type() == dtype, operation, ": ", name, " is ", x.scalar_type(), "; it must be ",
                         dtype, ": pass ", name, ".to(", cast, ")");
}

void check_scores(const char* operation, const Tensor& s_qk, const Tensor& s_kq) {
  constexpr const char* kMeaning = "[batch, num_kv_heads, seq_len]";
  LIGHTHOUSE_CHECK_VALUE(s_qk.defined() && s_qk.dim() == 3, operation, ": s_qk has ", s_qk.defined() ? s_qk.dim() : 0,
                         " dimensions; it must be ", kMeaning);
  for (int64_t i = 0; i < 3; ++i) {
    LIGHTHOUSE_CHECK_VALUE(size(s_qk, i) >= 1, operation, ": s_qk has shape ", sizes(s_qk), "; it must be ", kMeaning,
                           " with no size zero");
  }
  check_dtype(operation, "s_qk", s_qk, ScalarType::Float);
  check_shape(operation, "s_kq", s_kq, sizes(s_qk), "as s_qk", s_qk);
  check_dtype(operation, "s_kq", s_kq, ScalarType::Float);
}

SequencePlan checked_plan(const char* operation, const SelectionConfig& config, int64_t seq_len, const Size& batch,
                          OptionalIntegers cu_seqlens) {
  if (!cu_seqlens) {
    return restate_errors([&] { return make_plan(config, seq_len, {}, operation); });
  }
  LIGHTHOUSE_CHECK_VALUE(batch == 1, operation, ": cu_seqlens is given with batch ", batch,
                         "; packed documents need batch 1: concatenate the sequences along the tokens");
  LIGHTHOUSE_CHECK_VALUE(!cu_seqlens->empty(), operation,
                         ": cu_seqlens has 0 elements; it must hold the offsets 0, ..., ", seq_len, ", or be left out");
  return restate_errors([&] {
    return make_plan(config, seq_len, {cu_seqlens->data(), cu_seqlens->size()}, operation);
  });
}

DType stage_dtype(const Tensor& x) {
  switch (x.scalar_type()) {
    case ScalarType::Float:
      return DType::kFloat32;
    case ScalarType::Double:
      return DType::kFloat64;
    case ScalarType::BFloat16:
      return DType::kBFloat16;
    case ScalarType::Half:
      return DType::kFloat16;
    default:
      LIGHTHOUSE_FAIL("dtype ", x.scalar_type(), " was not checked");
  }
}

int64_t fixed_size(const Tensor& x, int64_t dimension) { return fixed(size(x, dimension)); }

}  // namespace lighthouse::ops

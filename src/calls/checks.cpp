#include "calls/checks.h"

#include <algorithm>

#include "calls/run.h"

namespace lighthouse::calls {
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

void check_defined(const char* operation, const char* name, const TensorView& x, const char* meaning) {
  LIGHTHOUSE_CHECK(x.is_defined, operation, ": ", name, " is an undefined tensor; it must be ", meaning);
}

void check_rank(const char* operation, const char* name, const TensorView& x, const char* meaning) {
  check_defined(operation, name, x, meaning);
  LIGHTHOUSE_CHECK(x.dim() == 4, operation, ": ", name, " has ", x.dim(), " dimensions; it must be ", meaning);
  for (const int64_t size : x.sizes) {
    LIGHTHOUSE_CHECK(size >= 1, operation, ": ", name, " has shape ", Sizes{x.sizes}, "; it must be ", meaning,
                     " with no size zero");
  }
}

void check_elements(const char* operation, const char* name, const TensorView& x) {
  LIGHTHOUSE_CHECK(x.element != Element::kOther && x.element != Element::kInt32, operation, ": ", name, " is ",
                   x.element_name, "; it must be Float, Double, BFloat16 or Half");
  LIGHTHOUSE_CHECK(x.is_strided, operation, ": ", name, " has layout Sparse; pass ", name, ".to_dense()");
  LIGHTHOUSE_CHECK(x.size(3) == 1 || x.stride(3) == 1, operation, ": the channels of ", name, " have stride ",
                   x.stride(3), "; they must be contiguous (stride 1): pass ", name, ".contiguous()");
  check_device(operation, name, x);
}

void check_same_kind(const char* operation, const char* name, const TensorView& x, const TensorView& q) {
  LIGHTHOUSE_CHECK(x.element == q.element, operation, ": ", name, " is ", x.element_name, ", but q is ", q.element_name,
                   "; cast q, k and v to one dtype");
  LIGHTHOUSE_CHECK(x.device == q.device, operation, ": ", name, " is on ", x.device, ", but q is on ", q.device,
                   "; move q, k and v to one device");
}

HeadSizes check_three(const char* operation, const Heads& x, const Shapes& shapes) {
  const auto& [q, k, v] = x;
  check_rank(operation, "q", q, shapes.query);
  check_rank(operation, "k", k, shapes.key);
  check_rank(operation, "v", v, shapes.key);
  check_elements(operation, "q", q);
  check_same_kind(operation, "k", k, q);
  check_same_kind(operation, "v", v, q);
  check_elements(operation, "k", k);
  check_elements(operation, "v", v);
  for (const int64_t dimension : {int64_t{0}, shapes.seq_dimension, int64_t{3}}) {
    LIGHTHOUSE_CHECK(k.size(dimension) == q.size(dimension), operation, ": k has shape ", Sizes{k.sizes},
                     ", but q has ", Sizes{q.sizes}, "; they may differ in the number of heads (dimension ",
                     shapes.head_dimension, ") only");
  }
  LIGHTHOUSE_CHECK(std::ranges::equal(v.sizes, k.sizes), operation, ": v has shape ", Sizes{v.sizes}, ", but k has ",
                   Sizes{k.sizes}, "; they must be equal");
  check_group(operation, q.size(shapes.head_dimension), k.size(shapes.head_dimension));
  return {q.size(0), q.size(shapes.head_dimension), k.size(shapes.head_dimension), q.size(3),
          q.size(shapes.seq_dimension)};
}

}  // namespace

HeadSizes check_tokens(const char* operation, const Heads& x) { return check_three(operation, x, kByToken); }

HeadSizes check_rows(const char* operation, const Heads& x) { return check_three(operation, x, kByRow); }

void check_heads(const char* operation, const char* name, const TensorView& x) {
  check_rank(operation, name, x, "a 4-dimensional tensor");
  check_elements(operation, name, x);
}

void check_device(const char* operation, const char* name, const TensorView& x) {
  LIGHTHOUSE_CHECK(x.device.is_cpu() || x.device.is_cuda(), operation, ": ", name, " is on ", x.device,
                   "; the operators run on cpu and cuda");
  LIGHTHOUSE_CHECK(x.device.is_cpu() || kWithCuda, operation, ": ", name, " is on ", x.device,
                   ", but this library is built without CUDA; build it where nvcc is found");
}

void check_group(const char* operation, int64_t num_heads, int64_t num_kv_heads) {
  LIGHTHOUSE_CHECK(num_kv_heads >= 1 && num_heads % num_kv_heads == 0, operation, ": num_heads ", num_heads,
                   " is not a multiple of num_kv_heads ", num_kv_heads,
                   "; every KV head must serve the same number of query heads");
}

void check_shape(const char* operation, const char* name, const TensorView& x, std::span<const int64_t> shape,
                 const char* meaning, const TensorView& like) {
  check_defined(operation, name, x, meaning);
  LIGHTHOUSE_CHECK(std::ranges::equal(x.sizes, shape), operation, ": ", name, " has shape ", Sizes{x.sizes},
                   "; it must be ", meaning, ", here ", Sizes{shape});
  LIGHTHOUSE_CHECK(x.device == like.device, operation, ": ", name, " is on ", x.device, ", but other arguments are on ",
                   like.device, "; move all to one device");
}

void check_element(const char* operation, const char* name, const TensorView& x, Element element) {
  const bool integer = element == Element::kInt32;
  LIGHTHOUSE_CHECK(x.element == element, operation, ": ", name, " is ", x.element_name, "; it must be ",
                   integer ? "Int" : "Float", ": pass ", name, ".to(", integer ? "torch.int32" : "torch.float32", ")");
}

void check_scores(const char* operation, const TensorView& s_qk, const TensorView& s_kq) {
  constexpr const char* kMeaning = "[batch, num_kv_heads, seq_len]";
  LIGHTHOUSE_CHECK(s_qk.dim() == 3, operation, ": s_qk has ", s_qk.dim(), " dimensions; it must be ", kMeaning);
  for (const int64_t size : s_qk.sizes) {
    LIGHTHOUSE_CHECK(size >= 1, operation, ": s_qk has shape ", Sizes{s_qk.sizes}, "; it must be ", kMeaning,
                     " with no size zero");
  }
  check_element(operation, "s_qk", s_qk, Element::kFloat32);
  check_shape(operation, "s_kq", s_kq, s_qk.sizes, "as s_qk", s_qk);
  check_element(operation, "s_kq", s_kq, Element::kFloat32);
}

void check_index_array(const char* operation, const char* name, const TensorView& array,
                       std::initializer_list<int64_t> shape, const char* meaning, const TensorView& like) {
  check_shape(operation, name, array, {shape.begin(), shape.size()}, meaning, like);
  check_element(operation, name, array, Element::kInt32);
  LIGHTHOUSE_CHECK(array.is_contiguous(), operation, ": ", name, " has strides ", Sizes{array.strides},
                   "; it must be contiguous: pass ", name, ".contiguous()");
}

}  // namespace lighthouse::calls

#include "ops_cases.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>

#include <algorithm>
#include <cmath>

#include "support/attention_results.h"
#include "support/golden.h"

namespace lighthouse::ops_test {
namespace {

template <typename T>
at::Tensor copy_of(const std::vector<T>& values, at::IntArrayRef shape, at::ScalarType dtype) {
  at::Tensor x = at::empty(shape, at::TensorOptions().dtype(dtype));
  TORCH_CHECK(x.nbytes() == values.size() * sizeof(T));
  std::copy(values.begin(), values.end(), static_cast<T*>(x.mutable_data_ptr()));
  return x;
}

template <typename T>
std::vector<T> values_of(const at::Tensor& x) {
  const at::Tensor contiguous = x.cpu().contiguous();
  const T* first = contiguous.const_data_ptr<T>();
  return {first, first + contiguous.numel()};
}

}  // namespace

std::vector<OpsCase> small_cases() {
  return {
      {"plain", 1, 64, 2, 2, 8, make_config(4, 3, 2), scored_by(Scorer::kNorm), {}},
      {"grouped_odd_length", 2, 77, 4, 2, 5, make_config(3, 3, 2, 2), scored_by(Scorer::kNorm), {}},
      {"multi_query", 1, 50, 3, 1, 4, make_config(2, 2, 4), scored_by(Scorer::kNorm), {}},
      {"deep", 1, 130, 2, 1, 4, make_config(5, 5, 2, 2), scored_by(Scorer::kNorm), {}},
      {"wide_pool", 2, 70, 2, 2, 3, make_config(1, 2, 16), scored_by(Scorer::kNorm), {}},
      {"one_level", 1, 33, 2, 1, 4, make_config(7, 1, 4), scored_by(Scorer::kNorm), {}},
      {"one_token", 2, 1, 2, 1, 4, make_config(1, 3, 4), scored_by(Scorer::kNorm), {}},
      {"budget_above_length", 1, 20, 1, 1, 4, make_config(100, 3, 2), scored_by(Scorer::kNorm), {}},
      {"dilated", 2, 66, 4, 2, 8, make_config(4, 3, 2), scored_by(Scorer::kDilated, 4), {}},
      {"gla", 2, 51, 4, 2, 8, make_config(4, 3, 2), scored_by(Scorer::kGla, 3), {}},
      {"packed", 1, 90, 4, 2, 4, make_config(6, 3, 2, 2), scored_by(Scorer::kNorm), {0, 1, 30, 30, 77, 90}},
      {"packed_dilated", 1, 71, 2, 1, 4, make_config(6, 3, 2, 2), scored_by(Scorer::kDilated, 4), {0, 3, 40, 71}},
      {"packed_full", 1, 60, 4, 2, 8, make_config(100, 3, 2), scored_by(Scorer::kDilated, 4), {0, 7, 7, 8, 30, 60}},
      {"packed_gla", 1, 71, 2, 1, 4, make_config(6, 3, 2, 2), scored_by(Scorer::kGla, 2), {0, 3, 40, 71}},
  };
}

at::Tensor normal(at::IntArrayRef shape, int64_t seed, at::ScalarType dtype) {
  const std::vector<float> values =
      test_support::golden_input(seed, test_support::GoldenInput::kQ, c10::multiply_integers(shape));
  return copy_of(values, shape, at::kFloat).to(test_device(), dtype);
}

Inputs make_inputs(const OpsCase& test_case, at::ScalarType dtype, int64_t seed) {
  const OpsCase& c = test_case;
  Inputs inputs;
  inputs.q = normal({c.batch, c.seq_len, c.num_heads, c.head_dim}, 10 * seed, dtype);
  inputs.k = normal({c.batch, c.seq_len, c.num_kv_heads, c.head_dim}, 10 * seed + 1, dtype);
  inputs.v = normal({c.batch, c.seq_len, c.num_kv_heads, c.head_dim}, 10 * seed + 2, dtype);
  inputs.dout = normal(inputs.q.sizes(), 10 * seed + 3, dtype);
  if (c.score.scorer == Scorer::kGla) {
    inputs.gate = normal({c.batch, c.seq_len, c.num_heads}, 10 * seed + 4).abs().neg() / 16;
  }
  return inputs;
}

AttentionOptions options_of(const OpsCase& test_case, const Inputs& inputs) {
  AttentionOptions options;
  options.selection_config = test_case.config;
  options.score_config = test_case.score;
  if (inputs.gate.defined()) options.gate = inputs.gate;
  options.cu_seqlens = test_case.offsets();
  return options;
}

AttentionOptions repeatable(AttentionOptions options) {
  options.deterministic = true;
  return options;
}

at::Tensor selection_of(const OpsCase& test_case, const Inputs& inputs) {
  const AttentionOptions options = options_of(test_case, inputs);
  const auto [s_qk, s_kq] =
      token_scores(inputs.q, inputs.k, inputs.v, test_case.score, options.gate, test_case.offsets());
  return select(s_qk, s_kq, test_case.config, test_case.offsets());
}

Results results_of(const Inputs& inputs, const Attention& attention) {
  return test_support::attention_results(inputs, attention);
}

Results results_of(const Inputs& inputs, const AttentionOptions& options) {
  return results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return lighthouse_attention(q, k, v, options);
  });
}

bool same_attention(const at::Tensor& a, const at::Tensor& b) {
  if (test_device().is_cpu()) return same_bits(a, b);
  // Sums of up to a few hundred products, rounded to the dtype between the two matrix products.
  const double epsilon = a.scalar_type() == at::kFloat ? std::ldexp(1.0, -23) : std::ldexp(1.0, -8);
  return max_error(a, b.to(at::kDouble)) <= 8 * epsilon * (1 + b.abs().max().item<double>());
}

reference::Tensor to_reference(const at::Tensor& x) {
  reference::Tensor result(x.size(0), x.size(1), x.size(2), x.dim() == 4 ? x.size(3) : 1);
  result.values = values_of<double>(x.to(at::kDouble));
  return result;
}

at::Tensor from_reference(const reference::Tensor& x) {
  return copy_of(x.values, {x.batch, x.length, x.heads, x.channels}, at::kDouble).to(test_device());
}

reference::Selection to_reference_selection(const at::Tensor& selection) {
  return {selection.size(0), selection.size(1), selection.size(2), values_of<int32_t>(selection)};
}

double max_error(const at::Tensor& x, const at::Tensor& exact) {
  return (x.to(at::kDouble) - exact).abs().max().item<double>();
}

}  // namespace lighthouse::ops_test

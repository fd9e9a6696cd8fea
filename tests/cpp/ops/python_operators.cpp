// The public functions as torch.ops.lighthouse_cpp.*, so that Python's tests compare them with the package, in one
// process. Not part of the product.
#include <torch/library.h>

#include <string>
#include <utility>

#include "lighthouse/ops.h"

namespace lighthouse {
namespace {

using OptionalTensor = std::optional<at::Tensor>;

// NOLINTBEGIN(performance-unnecessary-value-param): as the dispatcher passes them
std::tuple<at::Tensor, at::Tensor> token_scores_operator(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                         std::string scorer, int64_t dilation,
                                                         const OptionalTensor& gate,
                                                         at::OptionalIntArrayRef cu_seqlens) {
  return token_scores(q, k, v, {find_word<Scorer>(scorer).value(), dilation}, gate, cu_seqlens);
}

at::Tensor attention_operator(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t num_levels,
                              int64_t pooling_factor, int64_t topk, int64_t tile_topk, std::string scorer,
                              int64_t dilation, const OptionalTensor& gate, const OptionalTensor& s_qk,
                              const OptionalTensor& s_kq, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens,
                              std::optional<double> softmax_scale, const OptionalTensor& selection) {
  AttentionOptions options;
  options.selection_config = {num_levels, pooling_factor, topk, tile_topk, cover_prefix};
  options.score_config = {find_word<Scorer>(scorer).value(), dilation};
  options.gate = gate;
  if (s_qk) options.scores = {*s_qk, *s_kq};
  options.selection = selection;
  options.cu_seqlens = cu_seqlens;
  options.softmax_scale = softmax_scale;
  return lighthouse_attention(q, k, v, options);
}
// NOLINTEND(performance-unnecessary-value-param)

}  // namespace
}  // namespace lighthouse

TORCH_LIBRARY(lighthouse_cpp, m) {
  m.def(
      "token_scores(Tensor q, Tensor k, Tensor v, *, str scorer='norm', int dilation=4, Tensor? gate=None, "
      "int[]? cu_seqlens=None) -> (Tensor s_qk, Tensor s_kq)",
      &lighthouse::token_scores_operator);
  m.def(
      "attention(Tensor q, Tensor k, Tensor v, *, int num_levels=3, int pooling_factor=4, int topk, "
      "int tile_topk=128, str scorer='norm', int dilation=4, Tensor? gate=None, Tensor? s_qk=None, Tensor? s_kq=None, "
      "bool cover_prefix=True, int[]? cu_seqlens=None, float? softmax_scale=None, Tensor? selection=None) -> Tensor",
      &lighthouse::attention_operator);
}

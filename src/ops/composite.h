// The public operators as the dispatcher calls them; each is the function of lighthouse/ops.h with its options spelled
// out.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/SymInt.h>

#include <cstdint>
#include <optional>
#include <string>
#include <tuple>

namespace lighthouse::ops {

using OptionalTensor = std::optional<at::Tensor>;

int64_t gathered_length_op(int64_t seq_len, int64_t num_levels, int64_t pooling_factor, int64_t topk, int64_t tile_topk,
                           at::OptionalIntArrayRef cu_seqlens);
std::tuple<at::Tensor, at::Tensor> token_scores_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                   std::string scorer, int64_t dilation, const OptionalTensor& gate,
                                                   at::OptionalIntArrayRef cu_seqlens);
at::Tensor select_op(const at::Tensor& s_qk, const at::Tensor& s_kq, int64_t num_levels, int64_t pooling_factor,
                     int64_t topk, int64_t tile_topk, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens);
std::tuple<at::Tensor, at::Tensor, at::Tensor> gather_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                         const at::Tensor& selection, int64_t num_levels,
                                                         int64_t pooling_factor, int64_t topk, int64_t tile_topk,
                                                         at::OptionalIntArrayRef cu_seqlens, bool check_selection);
at::Tensor scatter_op(const at::Tensor& rows, const at::Tensor& selection, c10::SymInt seq_len, int64_t num_levels,
                      int64_t pooling_factor, int64_t topk, int64_t tile_topk, at::OptionalIntArrayRef cu_seqlens,
                      bool check_selection);
at::Tensor causal_attention_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                               std::optional<double> softmax_scale, at::OptionalIntArrayRef cu_seqlens,
                               bool deterministic);
at::Tensor attention_op(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t num_levels,
                        int64_t pooling_factor, int64_t topk, int64_t tile_topk, std::string scorer, int64_t dilation,
                        const OptionalTensor& gate, const OptionalTensor& s_qk, const OptionalTensor& s_kq,
                        bool cover_prefix, at::OptionalIntArrayRef cu_seqlens, std::optional<double> softmax_scale,
                        const OptionalTensor& selection, bool check_selection, bool deterministic);

}  // namespace lighthouse::ops

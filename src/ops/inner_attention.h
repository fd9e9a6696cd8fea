// Section (v): stock causal attention over gathered rows, q [B, H, S, D], k and v [B, H_kv, S, D] -> [B, H, S, D].
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "lighthouse/ops.h"

namespace lighthouse::ops {

/// Stock attention of all documents of a row, which hold `num_rows` rows each (B = 1 where there are several).
/// `before`: so many rows of the first document have keys and values here, [B, H_kv, before + S, D], but no queries.
///
/// PyTorch's scaled_dot_product_attention chooses the kernel: on Hopper and data-centre Blackwell cuDNN where it can,
/// else FlashAttention-2, else the memory-efficient kernel, else plain matrix products; torch's switches of these are
/// obeyed. What its kernels would refuse is copied, padded or repeated before (stock_rules.h). Several documents on
/// CUDA are one call: cuDNN where the documents are long enough for it to be ahead (document_sizes.h) and
/// cudnn_documents_run, else FlashAttention-2 (16-bit types, D <= 256) or the memory-efficient kernel, all by offsets;
/// fp64 and the CPU go document by document.
///
/// One document of kLongRows rows or more that would go to cuDNN is taken in blocks of queries (long_attention.h).
///
/// `deterministic`: on CUDA one document goes to cudnn_attention where cudnn_attention_runs (that states the rule); all
/// else runs as though PyTorch's deterministic mode were on for this call and its backward, which rules cuDNN out: its
/// ordinary backward adds in varying order.
///
/// With `before`, the CPU, and cuDNN for a single document, attend to the keys before and to the others apart
/// (merged_attention.h). All else on CUDA is one call: FlashAttention-2 or the memory-efficient kernel; fp64 has a mask
/// in memory.
at::Tensor stock_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::vector<int64_t>& num_rows, std::optional<double> softmax_scale,
                           bool deterministic, int64_t before = 0);

/// The same tensor, whose gradient in backward is first copied where stock kernels on CUDA would refuse it. One that
/// scatter's adjoint makes lies right.
at::Tensor with_any_gradient(at::Tensor out);

/// `attention` on each document that has rows; `before` as above.
at::Tensor attend_each(const InnerAttention& attention, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const std::vector<int64_t>& num_rows, int64_t before = 0);

}  // namespace lighthouse::ops

// Section (v) for packed documents on CUDA by cuDNN: all documents of a row in one call, whatever their lengths.
//
// PyTorch 2.11's own call of this kind (_cudnn_attention_forward) makes its plan anew each time, so the graphs are
// ours. Every tensor has memory of its own, in which each row of heads follows the last one, with rows of zeros behind
// it: with q, k and v beside one another the gradient of q came out wrong, or an instruction was illegal.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/macros/Export.h>

#include <cstdint>
#include <vector>

namespace lighthouse::ops {

/// Whether cudnn_documents takes these: q [1, H, S, D], k and v [1, H_kv, S, D] of any strides, documents of `num_rows`
/// rows. The rule:
///   bf16 or fp16; D a multiple of 16, at most 128; (S + 256) H D < 2^31; a device of compute capability 9.x
///   or 10.x; cuDNN 9.18 or newer, not switched off in torch (enable_cudnn_sdp); the build found the headers of
///   cudnn-frontend; and cuDNN has a forward and a backward for these sizes, which it is asked.
/// The first call for new sizes builds their plans, which takes about a fifth of a second. Plans serve all documents
/// whose number, longest and sum are the same when rounded up (document_sizes.h), so that a run builds few.
C10_EXPORT bool cudnn_documents_run(const at::Tensor& q, const at::Tensor& k, const std::vector<int64_t>& num_rows,
                                    double softmax_scale);

/// Causal attention inside each document, [1, H, S, D], differentiable once; only where cudnn_documents_run. As with
/// one document, the backward adds in varying order. q, k, v and the gradient of the output are copied to memory that
/// has rows of zeros behind it; the copies of q, k and v are what is kept for the backward. A NaN of one document can
/// reach the end of those before.
C10_EXPORT at::Tensor cudnn_documents(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                      const std::vector<int64_t>& num_rows, double softmax_scale);

}  // namespace lighthouse::ops

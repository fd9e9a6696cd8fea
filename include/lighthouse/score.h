// Stage (ii): level-0 scores, without gradients. The `dilated` scorer is stock attention followed by token_norms, and
// so lives with the PyTorch operators (include/lighthouse/ops.h).
#pragma once

#include <cstdint>
#include <span>

#include "lighthouse/dtype.h"
#include "lighthouse/parallel_for.h"
#include "lighthouse/strided_view.h"

namespace lighthouse {

/// score[b, g, j] = max over the heads h of KV group g of ||x[b, j, h, :]||_2, in fp32.
/// Head h belongs to group h / (num_heads / num_kv_heads). NaN norms stay NaN if every head of the group is NaN; else
/// the largest number wins (a NaN counts as -infinity).
struct TokenNormParams {
  ConstView x;  ///< [B, N, H, D] dtype
  DType dtype;
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim;
  float* score;  ///< element (b, g, j) at score[b * score_batch_stride + g * score_head_stride + j * score_seq_stride]
  int64_t score_batch_stride, score_head_stride, score_seq_stride;
};
void token_norms(const TokenNormParams& params, const ParallelFor& parallel_for);

/// Both scores of the `gla` scorer: simple gated linear attention inside every residue class j mod dilation of every
/// document, S_t = exp(g_t) S_{t-1} + k_t v_t^T, o_t = q_t S_t / sqrt(D); s_qk = ||o||, and s_kq with q and k
/// exchanged. The state is fp32 (fp64 for fp64 inputs); no outputs are stored.
struct GlaScoreParams {
  ConstView q;  ///< [B, N, H, D] dtype
  ConstView k;  ///< [B, N, H_kv, D]
  ConstView v;  ///< [B, N, H_kv, D]
  DType dtype;
  const float* gate;  ///< log forget gate <= 0 of (b, j, h) at gate[b * gate_batch_stride + j * gate_seq_stride + h *
                      ///< gate_head_stride]
  int64_t gate_batch_stride, gate_seq_stride, gate_head_stride;
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim;
  int64_t dilation;                     ///< >= 1
  std::span<const int64_t> cu_seqlens;  ///< empty, or token offsets of packed documents
  float* s_qk;                          ///< [B, H_kv, N] contiguous: max over the group's query heads
  float* s_kq;                          ///< [B, H_kv, N] contiguous
};
void gla_scores(const GlaScoreParams& params, const ParallelFor& parallel_for);

}  // namespace lighthouse

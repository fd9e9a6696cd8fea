// The CUDA counterparts of the CPU stages. They take the same parameters with device pointers, a DevicePlan and a
// stream instead of a ParallelFor; they neither allocate, synchronise nor copy to the host, and can be captured in a
// CUDA graph. Errors of a launch throw CudaError (std::runtime_error); arguments are checked by the caller.
#pragma once

#include <cstdint>

#include "lighthouse/device_plan.h"
#include "lighthouse/gather.h"
#include "lighthouse/head_turn.h"
#include "lighthouse/scatter.h"
#include "lighthouse/score.h"

namespace lighthouse {

/// One pass over q, k and v (sections i and ii): maxima of the token norms over the windows of every level from 1 up,
/// and the means of the coarsest entries, which are always gathered. Level-0 scores are never ranked, so none are
/// written.
struct PoolParams {
  ConstView q;  ///< [B, N, H, D] dtype
  ConstView k;  ///< [B, N, H_kv, D]
  ConstView v;  ///< [B, N, H_kv, D]
  DType dtype;
  int64_t batch, num_heads, num_kv_heads, head_dim;
  float* max_qk;     ///< out [B, H, num_maxima]: of ||q||, a query head each; null: no scores wanted (then max_kq too)
  float* max_kq;     ///< out [B, H_kv, num_maxima]: of ||k||
  void* q_coarse;    ///< out [B, num_coarse, H, D] dtype
  void* k_coarse;    ///< out [B, num_coarse, H_kv, D]
  void* v_coarse;    ///< out [B, num_coarse, H_kv, D]
  float* workspace;  ///< pool_workspace_elements(...) floats
  HeadTurn turn = {};
};
/// Whether pool_and_score takes these: heads of at most 512 bytes, a multiple of 16, that start at multiples of 16. The
/// plan must not be full.
bool can_pool_and_score(const ConstView& q, const ConstView& k, const ConstView& v, DType dtype, int64_t head_dim);
/// Whether pool_and_score, and gather_rows after it, turn q and k of these as they read them: heads as in
/// can_turn_gradients, with coarsest windows of 2 to 64 tokens.
bool can_turn_tokens(const GatherParams& params);
int64_t pool_workspace_elements(const DevicePlan& plan, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
                                int64_t head_dim, DType dtype);
void pool_and_score(const PoolParams& params, const DevicePlan& plan, CudaStream stream);

/// The maxima from level-0 scores that were computed elsewhere: s_qk, s_kq fp32 [B, H_kv, N] -> [B, H_kv, num_maxima].
struct PoolScoresParams {
  const float* s_qk;
  const float* s_kq;
  int64_t batch, num_kv_heads;
  float* max_qk;
  float* max_kq;
};
void pool_scores(const PoolScoresParams& params, const DevicePlan& plan, CudaStream stream);

/// Sections (iii) and (iv), one block per (batch, KV head, tile). max_qk has num_score_heads = H or H_kv heads.
struct SelectMaximaParams {
  const float* max_qk;  ///< [B, num_score_heads, num_maxima]
  const float* max_kq;  ///< [B, H_kv, num_maxima]
  int64_t batch, num_score_heads, num_kv_heads;
  int32_t* selection;  ///< out [B, H_kv, S]
  int32_t* slots;      ///< out [B, H_kv, num_slots]
  int32_t* expanded;   ///< out [B, H_kv, num_expanded]: expanded coarsest entries, as numbered by coarse_begin; or null
  int32_t* workspace;  ///< select_workspace_elements(...) integers; may be null when that is 0
};
int64_t select_workspace_elements(const SequencePlan& plan, int64_t batch, int64_t num_kv_heads);
void select_entries(const SelectMaximaParams& params, const SequencePlan& plan, const DevicePlan& device_plan,
                    CudaStream stream);

/// slots of a selection that the caller made. `num_errors` (one int32 on the device, zeroed by the caller) counts rows
/// that are out of range, which are left out of slots, or that break the order of a forest (forest.h). Null: the values
/// are trusted.
struct InvertParams {
  const int32_t* selection;  ///< [B, H_kv, S]
  int64_t batch, num_kv_heads;
  int32_t* slots;  ///< out [B, H_kv, num_slots]
  int32_t* num_errors;
};
void invert_selection(const InvertParams& params, const DevicePlan& plan, CudaStream stream);

/// Means of the coarsest entries that pool_and_score left behind, and which of these select_entries expanded: other
/// windows are not read. All null: every window is pooled, and any selection will do.
struct CoarseMeans {
  const void* q = nullptr;
  const void* k = nullptr;
  const void* v = nullptr;
  const int32_t* expanded = nullptr;  ///< [B, H_kv, num_expanded]
};

/// The maps and their adjoints as on the CPU, with `slots` [B, H_kv, num_slots] beside the selection where the CPU has
/// the selection alone. The order of additions is fixed: tokens of a window as a binary tree where F <= 64, else one
/// after another; levels of a token from the coarsest down.
void gather_rows(const GatherParams& params, const int32_t* slots, const CoarseMeans& coarse, const DevicePlan& plan,
                 CudaStream stream, const HeadTurn& turn = {});
void gather_rows_backward(const GatherBackwardParams& params, const DevicePlan& plan, CudaStream stream,
                          const HeadTurn& turn = {});
/// Whether gather_rows_backward turns and scales these: fp32 or bf16; heads of 128, 256 or 512 bytes that start at
/// multiples of 16; numbers of heads, of queries and of keys, that are multiples of 16, 8 or 4 then.
bool can_turn_gradients(const GatherBackwardParams& params);
void scatter_rows(const ScatterParams& params, const DevicePlan& plan, CudaStream stream);
void scatter_rows_backward(const ScatterBackwardParams& params, const int32_t* slots, const DevicePlan& plan,
                           CudaStream stream);

/// As the CPU stage of the same name.
void carry_rows(const CarryParams& params, CudaStream stream);

/// As the CPU stage of the same name.
void token_norms(const TokenNormParams& params, CudaStream stream);

/// As the CPU stage of the same name, for head_dim up to 512. `bounds` is a device copy of params.cu_seqlens
/// [num_documents + 1]; it may be null for one document. `workspace` holds gla_workspace_elements(...) floats and is
/// aligned to 16 bytes. bf16 and fp16 with head_dim up to 128, a multiple of 8, and rows aligned to 16 bytes run on
/// tensor cores, their products' inputs rounded to the dtype; all others token by token: N / dilation dependent steps.
/// On tensor cores an infinite v makes the scores of its class NaN from its token on.
int64_t gla_workspace_elements(int64_t batch, int64_t seq_len, int64_t num_heads, int64_t head_dim, int64_t dilation,
                               DType dtype);
void gla_scores(const GlaScoreParams& params, const int32_t* bounds, float* workspace, CudaStream stream);

}  // namespace lighthouse

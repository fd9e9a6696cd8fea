// What several calls do with a selection.
#pragma once

#include "calls/calls.h"
#include "lighthouse/cuda_stages.h"

namespace lighthouse::calls {

/// Both index arrays are those of the plan, on the device of `like`.
void check_maps(const char* operation, const CallPlan& plan, const GatheringView& maps, int64_t batch,
                int64_t num_kv_heads, const TensorView& like);

/// S of rows that were gathered.
void check_num_rows(const char* operation, int64_t num_rows, const SequencePlan& plan);

/// H_kv, which is a size of no tensor but the selection.
int64_t kv_heads_of(const char* operation, const TensorView& selection, int64_t num_heads);

/// The memory of two results.
struct IndexMaps {
  int32_t* selection;
  int32_t* slots;
};
IndexMaps make_maps(CallContext& context, const CallPlan& plan, int64_t batch, int64_t num_kv_heads);

/// [B, H_kv, N], contiguous.
struct TokenScores {
  const float* s_qk;
  const float* s_kq;
  int64_t batch, num_kv_heads;
};
void select_by_scores(CallContext& context, const Device& device, const TokenScores& scores, const CallPlan& plan,
                      const IndexMaps& maps);

/// On CUDA, from the maxima of levels; `params` without workspace.
void select_maxima(CallContext& context, SelectMaximaParams params, const CallPlan& plan, const DevicePlan& on_device);

}  // namespace lighthouse::calls

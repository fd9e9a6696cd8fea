// One block of the decoder: x + attention(norm(x)), then x + feed_forward(norm(x)).
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "config/run_config.h"
#include "model/feed_forward.h"
#include "model/kv_cache.h"
#include "model/residual.h"
#include "model/rope.h"
#include "model/selection_tape.h"
#include "model/weights.h"
#include "ops/gathering.h"
#include "parallel/context_row.h"

namespace lighthouse {

/// Lighthouse attention as one layer runs it.
struct LighthouseSettings {
  SelectionConfig selection;
  ScoreConfig score;
};

/// What all layers of one pass share.
struct Pass {
  ModelConfig model;
  Rotation rotation;
  std::vector<int64_t> cu_seqlens;  ///< packed documents, or empty
  int64_t short_len = 0;            ///< not 0, without documents: a row is so many sequences of this length
  bool deterministic = false;       ///< attention repeats its bits on CUDA too
  bool keep_gate_up = true;         ///< for backward; false: multiplied out again
  KvCache* cache = nullptr;         ///< not null: the tokens go on from those in the cache; dense attention only
  RowShare share = {};              ///< of ranks that have the row together

  SelectionTape* recorded = nullptr;    ///< not null, [num_layers]: becomes what Lighthouse layers select
  const SelectionTape* held = nullptr;  ///< not null, [num_layers]: selections to take instead of scoring anything
};

/// As the operators take them: none where rows are not packed.
inline at::OptionalIntArrayRef documents_of(const Pass& pass) {
  return pass.cu_seqlens.empty() ? at::OptionalIntArrayRef() : at::OptionalIntArrayRef(pass.cu_seqlens);
}

/// The tensors of one layer.
struct Layer {
  size_t index;
  LayerWeights weights;
  LayerMatrices compute;
  std::optional<LighthouseSettings> lighthouse;  ///< none: the attention is dense or in a window, as chosen
                                                 ///< or because no sequence would get shorter
  calls::SharedPlan plan;                        ///< of the pass, for its selection
  int64_t window = 0;                            ///< not 0: tokens of a sliding window
  SharedRow row;                                 ///< not null: of the pass, of which this rank has a share
  bool rope = true;                              ///< heads turn by the pass's rotation
};

/// x [.., C] times its inverse root mean square over C, times weight [C]; in fp32, or fp64 if x is.
at::Tensor rms_norm(const at::Tensor& x, const at::Tensor& weight, double eps);

/// [B, N, dim] to [B, N, dim], in the compute dtype. A Lighthouse layer attends to what `selected` says, and scores
/// nothing; where that is empty it selects, and leaves there what it has selected.
Residual decoder_layer(const Residual& in, const Layer& layer, const Pass& pass, ops::Gathering& selected,
                       ForwardFor use = ForwardFor::kOutput);

}  // namespace lighthouse

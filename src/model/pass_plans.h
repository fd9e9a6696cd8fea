// The plans of one pass, each made for the first layer that needs it and shared by those after.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <optional>

#include "calls/plan.h"
#include "model/layer.h"
#include "parallel/context_row.h"

namespace lighthouse {

/// By topk, in which alone the Lighthouse layers of a model differ.
class PassPlans {
 public:
  /// Of `tokens` [B, N], with the documents and the share of `pass`, which outlives it.
  PassPlans(const at::Tensor& tokens, const Pass& pass)
      : pass_(pass), batch_(tokens.size(0)), num_tokens_(tokens.size(1)) {}

  /// Null: the attention is not Lighthouse, as chosen or because no sequence would get shorter.
  calls::SharedPlan plan(const std::optional<LighthouseSettings>& settings);
  /// Null: ranks do not share the row. Without settings, that of dense layers.
  SharedRow row(const std::optional<LighthouseSettings>& settings);

 private:
  const Pass& pass_;
  int64_t batch_, num_tokens_;
  std::map<int64_t, calls::SharedPlan> plans_;
  std::map<int64_t, SharedRow> rows_;  ///< 0: of dense layers
};

}  // namespace lighthouse

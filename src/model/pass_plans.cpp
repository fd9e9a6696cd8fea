#include "model/pass_plans.h"

namespace lighthouse {
namespace {

SelectionConfig every_token() {
  SelectionConfig config;
  config.num_levels = 1;
  return config;
}

}  // namespace

calls::SharedPlan PassPlans::plan(const std::optional<LighthouseSettings>& settings) {
  if (!settings) return nullptr;
  calls::SharedPlan& plan = plans_[settings->selection.topk];
  if (plan == nullptr) {
    plan = calls::share_plan("Decoder", settings->selection, num_tokens_, batch_,
                             calls::optional_offsets(pass_.cu_seqlens));
  }
  return plan->sequence().is_full() ? nullptr : plan;
}

SharedRow PassPlans::row(const std::optional<LighthouseSettings>& settings) {
  if (!pass_.share.is_shared()) return nullptr;
  SharedRow& row = rows_[settings ? settings->selection.topk : 0];
  if (row == nullptr) {
    row = c10::make_intrusive<ContextRow>(settings ? settings->selection : every_token(), batch_, documents_of(pass_),
                                          pass_.model.num_heads, pass_.model.num_kv_heads, pass_.share);
  }
  return row;
}

}  // namespace lighthouse

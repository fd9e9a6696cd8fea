#include "parallel/context_row.h"

#include <memory>
#include <utility>

#include "lighthouse/check.h"
#include "ops/gathering.h"

namespace lighthouse {

ContextRow::ContextRow(const SelectionConfig& config, int64_t batch, at::OptionalIntArrayRef cu_seqlens,
                       int64_t num_heads, int64_t num_kv_heads, RowShare of_share)
    : share(std::move(of_share)),
      whole(ops::plan_of("context parallelism", config, share.row_len(), batch, cu_seqlens)),
      heads(num_heads, num_kv_heads, share.group->size()),
      attended(heads, whole->rows_of_documents()) {
  LIGHTHOUSE_CHECK(static_cast<int64_t>(share.tokens.size()) == share.group->size(), "context parallelism: tokens of ",
                   share.tokens.size(), " ranks for a group of ", share.group->size());
  if (whole->sequence().is_full()) return;
  cut = context_plan(whole->sequence(), share.tokens, share.group->rank());
  part = std::make_shared<const calls::CallPlan>(cut.part);
}

}  // namespace lighthouse

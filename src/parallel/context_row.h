// A row of tokens that ranks share: what all layers of one selection make of it.
#pragma once

#include <ATen/core/ivalue.h>
#include <c10/util/ArrayRef.h>

#include <cstdint>
#include <vector>

#include "calls/plan.h"
#include "parallel/context_plan.h"
#include "parallel/group.h"
#include "parallel/head_spans.h"
#include "parallel/row_pieces.h"

namespace lighthouse {

/// How one row lies on the ranks that share it. By default it is not shared.
struct RowShare {
  std::vector<Span> tokens;  ///< of each rank of the group
  Group* group = nullptr;    ///< outlives all that is computed of the row

  bool is_shared() const { return group != nullptr && group->size() > 1; }
  const Span& own() const { return tokens[static_cast<size_t>(group->rank())]; }
  int64_t row_len() const { return tokens.back().end; }
};

/// The plan of the whole row, and this rank's part of it; autograd keeps it.
struct ContextRow : torch::CustomClassHolder {
  /// Throws c10::ValueError and InvalidArgument as make_plan, context_plan, HeadSpans and AttendedBlocks.
  ContextRow(const SelectionConfig& config, int64_t batch, at::OptionalIntArrayRef cu_seqlens, int64_t num_heads,
             int64_t num_kv_heads, RowShare of_share);

  /// Whether fewer rows than tokens are attended to.
  bool selects() const { return part != nullptr; }
  Group& group() const { return *share.group; }
  /// The rows whose queries this rank attends with, and those that they see.
  RowPiece piece() const {
    const auto rank = static_cast<size_t>(share.group->rank());
    return {attended.query[rank].rows, attended.key[rank].rows};
  }

  RowShare share;
  calls::SharedPlan whole;
  HeadSpans heads;
  AttendedBlocks attended;
  ContextPlan cut;         ///< of `whole`, where it selects
  calls::SharedPlan part;  ///< cut.part
};
using SharedRow = c10::intrusive_ptr<ContextRow>;

}  // namespace lighthouse

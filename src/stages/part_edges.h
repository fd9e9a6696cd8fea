// What crosses the cuts between the parts of a plan (part_of): the few tokens and rows at the edges of a part are
// summed once more, over all their terms and in the same order.
#pragma once

#include <array>

#include "lighthouse/scatter.h"
#include "stages/row_sum.h"

namespace lighthouse {

/// Calls body(batch, head, kv_head of all batches) for every head.
template <typename Params, typename Body>
void for_each_head(const Params& params, const ParallelFor& parallel_for, const Body& body) {
  parallel_for(params.batch * params.num_heads, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t batch = item / params.num_heads;
      const int64_t head = item % params.num_heads;
      body(batch, head, batch * params.num_kv_heads + head * params.num_kv_heads / params.num_heads);
    }
  });
}

/// The tokens at the front of the part, whose terms of some levels are carried rows.
template <typename T>
void scatter_to_front(const ScatterParams& params, const ParallelFor& parallel_for) {
  const SequencePlan& plan = *params.plan;
  const Document& document = plan.documents.front();
  const Pyramid& pyramid = document.pyramid;
  for_each_head(params, parallel_for, [&](int64_t batch, int64_t head, int64_t kv_head) {
    const auto rows = head_rows<T>(params.rows, batch, head);
    const auto carried = head_rows<T>(params.carried, batch, head);
    const auto out = head_rows<T>(params.out, batch, head);
    const LevelSlots slots(document, params.slots + kv_head * plan.num_slots);
    for (int64_t token = 0; token < document.tokens_reached(); ++token) {
      std::array<WeightedRow<T>, kMaxLevels> terms;
      int64_t count = 0;
      for (int level = 0; level < pyramid.num_levels; ++level) {
        const int64_t entry = scattered_entry(pyramid, level, token);
        const int32_t row = entry < 0 ? kNoRow : slots[level][entry];
        if (entry < 0) terms[count++] = {carried[level - 1], 1};
        if (row != kNoRow) terms[count++] = {rows[row], 1};
      }
      write_sum<T>(
          count, [&](int64_t t) { return terms[t]; }, 1, out[token], params.head_dim);
    }
  });
}

/// The rows at the back of the part that are added to tokens behind it: those of the last entries, level by level the
/// last rows of all for as long as these are expanded.
template <typename T>
void gather_from_behind(const ScatterBackwardParams& params, const ParallelFor& parallel_for) {
  const SequencePlan& plan = *params.plan;
  const Document& document = plan.documents.back();
  const Pyramid& pyramid = document.pyramid;
  Pyramid reach = pyramid;
  reach.seq_len += document.tokens_after;
  for_each_head(params, parallel_for, [&](int64_t batch, int64_t head, int64_t kv_head) {
    const auto tokens = head_rows<T>(params.dout, batch, head);
    const auto behind = head_rows<T>(params.dout_after, batch, head);
    const auto drows = head_rows<T>(params.drows, batch, head);
    const int32_t* selection = params.selection + kv_head * plan.gathered_len;
    for (int64_t row = plan.gathered_len - 1; row >= document.row_begin; --row) {
      const Entry entry = entry_at(pyramid, selection[row] - document.entry_begin);
      if (entry.level == 0 || entry.index + 1 != pyramid.level_size(entry.level)) break;
      const TokenRange range = scatter_range(reach, entry);
      const auto term = [&](int64_t t) {
        const int64_t token = range.begin + t;
        const bool own = token < pyramid.seq_len;
        return WeightedRow<T>{own ? tokens[document.token_begin + token] : behind[token - pyramid.seq_len], 1};
      };
      write_sum<T>(range.end - range.begin, term, 1, drows[row], params.head_dim);
    }
  });
}

/// carry_rows.
template <typename T>
void copy_last_rows(const CarryParams& params, const ParallelFor& parallel_for) {
  const SequencePlan& plan = *params.plan;
  const Document& document = plan.documents.back();
  const Pyramid& pyramid = document.pyramid;
  for_each_head(params, parallel_for, [&](int64_t batch, int64_t head, int64_t kv_head) {
    const auto rows = head_rows<T>(params.rows, batch, head);
    const auto carried = head_rows<T>(params.carried, batch, head);
    const LevelSlots slots(document, params.slots + kv_head * plan.num_slots);
    for (int level = 1; level < plan.config.num_levels; ++level) {
      const bool goes_on = document.tokens_after > 0 && level < pyramid.num_levels;
      const int32_t row = goes_on ? slots[level][pyramid.level_size(level) - 1] : kNoRow;
      const auto term = [&](int64_t /*t*/) { return WeightedRow<T>{rows[row], 1}; };
      write_sum<T>(row == kNoRow ? 0 : 1, term, 1, carried[level - 1], params.head_dim);
    }
  });
}

}  // namespace lighthouse

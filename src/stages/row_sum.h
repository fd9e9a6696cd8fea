// What gather, scatter and their adjoints have in common: every output row is a weighted sum of input rows.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <iterator>

#include "lighthouse/geometry.h"
#include "lighthouse/parallel_for.h"
#include "lighthouse/strided_view.h"
#include "stages/lanes.h"

namespace lighthouse {

/// The element type T, batch and head of a view, addressed by token or row.
template <typename T>
struct HeadRows {
  T* data;
  int64_t stride;
  T* operator[](int64_t position) const { return data + position * stride; }
};
template <typename T>
HeadRows<const T> head_rows(const ConstView& view, int64_t batch, int64_t head) {
  return {static_cast<const T*>(view.data) + batch * view.batch_stride + head * view.head_stride, view.seq_stride};
}
template <typename T>
HeadRows<T> head_rows(const View& view, int64_t batch, int64_t head) {
  return {static_cast<T*>(view.data) + batch * view.batch_stride + head * view.head_stride, view.seq_stride};
}

/// The slots of one document, level by level: level_slots[level][entry] = row or kNoRow.
class LevelSlots {
 public:
  LevelSlots(const Document& document, const int32_t* slots) {
    for (int level = 0; level < document.pyramid.num_levels; ++level) {
      begin_[level] = slots + document.slot_begin + document.pyramid.slot_offset(level);
    }
  }
  const int32_t* operator[](int level) const { return begin_[level]; }

 private:
  std::array<const int32_t*, kMaxLevels> begin_;
};

template <typename T>
struct WeightedRow {
  const T* row;
  Accumulator<T> weight;
};

/// out[c] = scale * sum over t < count of weight(t) * row(t)[c] for kVectors vectors of channels, where
/// term(t) = {row(t), weight(t)}. The sums stay in registers.
template <int kVectors, typename T, typename Term>
inline void write_sum_of_vectors(int64_t count, const Term& term, Accumulator<T> scale, T* out, int64_t channel) {
  Lanes<T> sums[kVectors] = {};
  for (int64_t t = 0; t < count; ++t) {
    const WeightedRow<T> source = term(t);
#pragma GCC unroll 8
    for (int i = 0; i < kVectors; ++i) sums[i] += source.weight * load(source.row + channel + i * kLanes<T>);
  }
#pragma GCC unroll 8
  for (int i = 0; i < kVectors; ++i) store(out + channel + i * kLanes<T>, sums[i] * scale);
}

/// The same for all channels. Terms are added in order of t and the sum is rounded once.
template <typename T, typename Term>
inline void write_sum(int64_t count, const Term& term, Accumulator<T> scale, T* out, int64_t channels) {
  constexpr int kVectors = 8;
  int64_t channel = 0;
  for (; channel + kVectors * kLanes<T> <= channels; channel += kVectors * kLanes<T>) {
    write_sum_of_vectors<kVectors>(count, term, scale, out, channel);
  }
  for (; channel + kLanes<T> <= channels; channel += kLanes<T>) {
    write_sum_of_vectors<1>(count, term, scale, out, channel);
  }
  if (channel == channels) return;
  Lanes<T> sum = {};
  for (int64_t t = 0; t < count; ++t) {
    const WeightedRow<T> source = term(t);
    sum += source.weight * load_some(source.row + channel, channels - channel);
  }
  store_some(out + channel, sum * scale, channels - channel);
}

/// Calls body(batch, head, begin, end) for pieces of [0, length) of every batch and head. Heads vary before pieces do:
/// in the usual [B, N, H, D] memory order the heads of a token are neighbours.
template <typename Body>
void for_each_piece(const ParallelFor& parallel_for, int64_t num_batches, int64_t length, int64_t num_heads,
                    const Body& body) {
  constexpr int64_t kPiece = 64;
  const int64_t pieces = ceil_div(length, kPiece);
  parallel_for(num_batches * pieces * num_heads, 4, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t head = item % num_heads;
      const int64_t piece = item / num_heads % pieces;
      const int64_t batch = item / num_heads / pieces;
      body(batch, head, piece * kPiece, std::min(length, (piece + 1) * kPiece));
    }
  });
}

/// Calls body(document, begin, end) for each document's part of the tokens or rows [begin, end), as kDocumentBegin =
/// &Document::token_begin or &Document::row_begin says. `total` is the end of the last document.
template <auto kDocumentBegin, typename Body>
void for_each_document(const SequencePlan& plan, int64_t total, int64_t begin, int64_t end, const Body& body) {
  const auto starts_after = [](int64_t position, const Document& document) {
    return position < document.*kDocumentBegin;
  };
  // Past every empty document that starts where the next one does.
  auto next = std::upper_bound(plan.documents.begin(), plan.documents.end(), begin, starts_after);
  while (begin < end) {
    const Document& document = *std::prev(next);
    const int64_t document_end = next == plan.documents.end() ? total : (*next).*kDocumentBegin;
    const int64_t part_end = std::min(end, document_end);
    if (begin < part_end) body(document, begin, part_end);
    begin = part_end;
    if (next != plan.documents.end()) ++next;
  }
}

/// Row r of `out` [B, S, H, D] = weight(pyramid, level) * sum of the tokens in range(pyramid, entry) of `in`
/// [B, N, H, D], for the entry that `selection` names.
template <typename T, typename Params, typename Range, typename Weight>
void rows_from_tokens(const Params& params, const ConstView& in, const View& out, int64_t num_heads, const Range& range,
                      const Weight& weight, const ParallelFor& parallel_for) {
  const SequencePlan& plan = *params.plan;
  const auto write_piece = [&](int64_t batch, int64_t head, int64_t begin, int64_t end) {
    const auto tokens = head_rows<T>(in, batch, head);
    const auto rows = head_rows<T>(out, batch, head);
    const int64_t kv_head = head * params.num_kv_heads / num_heads;
    const int32_t* selection = params.selection + (batch * params.num_kv_heads + kv_head) * plan.gathered_len;
    const auto write_part = [&](const Document& document, int64_t part_begin, int64_t part_end) {
      for (int64_t row = part_begin; row < part_end; ++row) {
        const Entry entry = entry_at(document.pyramid, selection[row] - document.entry_begin);
        const TokenRange summed = range(document.pyramid, entry);
        const int64_t first = document.token_begin + summed.begin;
        const auto term = [&](int64_t t) { return WeightedRow<T>{tokens[first + t], 1}; };
        write_sum(summed.end - summed.begin, term, weight(document.pyramid, entry.level), rows[row], params.head_dim);
      }
    };
    for_each_document<&Document::row_begin>(plan, plan.gathered_len, begin, end, write_part);
  };
  for_each_piece(parallel_for, params.batch, plan.gathered_len, num_heads, write_piece);
}

/// Token j of `out` [B, N, H, D] = sum over levels, from 0 upwards, of weight(pyramid, level) * the row in `in`
/// [B, S, H, D] of entry_of(pyramid, level, j), where that is not negative and was gathered. Once it is negative it
/// must be so for every coarser level.
template <typename T, typename Params, typename EntryOf, typename Weight>
void tokens_from_rows(const Params& params, const ConstView& in, const View& out, int64_t num_heads,
                      const EntryOf& entry_of, const Weight& weight, const ParallelFor& parallel_for) {
  const SequencePlan& plan = *params.plan;
  const auto write_piece = [&](int64_t batch, int64_t head, int64_t begin, int64_t end) {
    const auto rows = head_rows<T>(in, batch, head);
    const auto tokens = head_rows<T>(out, batch, head);
    const int64_t kv_head = head * params.num_kv_heads / num_heads;
    const int32_t* slots = params.slots + (batch * params.num_kv_heads + kv_head) * plan.num_slots;
    const auto write_part = [&](const Document& document, int64_t part_begin, int64_t part_end) {
      const LevelSlots level_slots(document, slots);
      for (int64_t token = part_begin; token < part_end; ++token) {
        std::array<WeightedRow<T>, kMaxLevels> terms;
        int64_t count = 0;
        for (int level = 0; level < document.pyramid.num_levels; ++level) {
          const int64_t entry = entry_of(document.pyramid, level, token - document.token_begin);
          if (entry < 0) break;
          const int32_t row = level_slots[level][entry];
          if (row != kNoRow) terms[count++] = {rows[row], weight(document.pyramid, level)};
        }
        write_sum<T>(
            count, [&](int64_t t) { return terms[t]; }, 1, tokens[token], params.head_dim);
      }
    };
    for_each_document<&Document::token_begin>(plan, plan.seq_len, begin, end, write_part);
  };
  for_each_piece(parallel_for, params.batch, plan.seq_len, num_heads, write_piece);
}

/// Weights of a level: every row as it is, or the mean over a window of the level.
template <typename T>
Accumulator<T> unit_weight(const Pyramid& /*pyramid*/, int /*level*/) {
  return 1;
}
template <typename T>
Accumulator<T> mean_weight(const Pyramid& pyramid, int level) {
  return 1 / static_cast<Accumulator<T>>(pyramid.window(level));
}

}  // namespace lighthouse

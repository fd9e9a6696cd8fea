#include "lighthouse/forest.h"

#include <algorithm>
#include <string>
#include <vector>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

bool is_entry(const Document& document, int32_t flat) {
  const int64_t local = flat - document.entry_begin;
  return local >= 0 && local < document.pyramid.entry_offset(document.pyramid.num_levels);
}

Entry entry_of(const Document& document, int32_t flat) {
  return entry_at(document.pyramid, flat - document.entry_begin);
}

/// The first wrong row of a document, or kNoRow.
int64_t first_wrong_row(const Document& document, const int32_t* selection) {
  const Pyramid& pyramid = document.pyramid;
  const int64_t end = document.row_begin + document.num_rows;
  NextRow next = first_row(pyramid);
  for (int64_t row = document.row_begin; row < end; ++row) {
    if (!is_entry(document, selection[row])) return row;
    const Entry entry = entry_of(document, selection[row]);
    if (!may_stand(pyramid, next, entry)) return row;
    if (row + 1 == end && !may_be_last(pyramid, entry)) return row;
    next = row_after(pyramid, entry);
  }
  return kNoRow;
}

std::string name_of(const Document& document, Entry entry) {
  return detail::concat(document.entry_begin + document.pyramid.entry_offset(entry.level) + entry.index, " (level ",
                        entry.level, ", entry ", entry.index, ")");
}

/// The entries that may stand in a row, for a message.
std::string choices(const Document& document, const NextRow& next) {
  const Pyramid& pyramid = document.pyramid;
  if (next.is_summary) return detail::concat("the summary ", name_of(document, next.coarsest));
  const TokenRange window = entry_window(pyramid, next.coarsest);
  std::string text = detail::concat("a leaf that begins at token ", document.token_begin + window.begin, ": ");
  for (int level = next.coarsest.level; level >= 0; --level) {
    const Entry leaf{level, next.coarsest.index << pyramid.shift(next.coarsest.level - level)};
    text += detail::concat(level == next.coarsest.level ? "" : " or ", name_of(document, leaf));
  }
  return text;
}

/// Why `row` is wrong, and what would do.
std::string reason(const Document& document, const int32_t* selection, int64_t row) {
  const Pyramid& pyramid = document.pyramid;
  const bool is_first = row == document.row_begin;
  const NextRow next = is_first ? first_row(pyramid) : row_after(pyramid, entry_of(document, selection[row - 1]));
  if (may_stand(pyramid, next, entry_of(document, selection[row]))) {
    return detail::concat("the rows end here, and the last must be ",
                          name_of(document, {pyramid.num_levels - 1, pyramid.num_coarse() - 1}));
  }
  if (next.coarsest.level == pyramid.num_levels - 1 && next.coarsest.index == pyramid.num_coarse()) {
    return detail::concat("row ", row - 1, " ends the sequence: fewer entries are expanded than its ",
                          document.num_rows, " rows need");
  }
  if (is_first) return detail::concat("it must be ", choices(document, next));
  return detail::concat("after row ", row - 1, ", ", name_of(document, entry_of(document, selection[row - 1])),
                        ", it must be ", choices(document, next));
}

[[noreturn]] void throw_wrong_row(const SelectionView& view, int64_t head, int64_t row) {
  const SequencePlan& plan = *view.plan;
  const int32_t* selection = view.selection + head * plan.gathered_len;
  const auto place = detail::concat("selection: (batch ", head / view.num_kv_heads, ", KV head ",
                                    head % view.num_kv_heads, ", row ", row, ") is ", selection[row]);
  const auto document = std::find_if(plan.documents.begin(), plan.documents.end(),
                                     [&](const Document& d) { return row < d.row_begin + d.num_rows; });
  const int64_t entries_end = document->entry_begin + document->pyramid.entry_offset(document->pyramid.num_levels);
  LIGHTHOUSE_CHECK(is_entry(*document, selection[row]), place, "; rows [", document->row_begin, ", ",
                   document->row_begin + document->num_rows, ") belong to document ", document - plan.documents.begin(),
                   ", whose entries are numbered [", document->entry_begin, ", ", entries_end,
                   "); was it made for another configuration, length or cu_seqlens?");
  const Entry entry = entry_of(*document, selection[row]);
  throw InvalidArgument(detail::concat(place, " (level ", entry.level, ", entry ", entry.index, "), but ",
                                       reason(*document, selection, row),
                                       "; the order of rows carries causality: pass what select returned"));
}

}  // namespace

int64_t first_wrong_row(const SequencePlan& plan, const int32_t* selection) {
  for (const Document& document : plan.documents) {
    const int64_t row = first_wrong_row(document, selection);
    if (row != kNoRow) return row;
  }
  return kNoRow;
}

void throw_first_wrong_row(const SelectionView& view, const ParallelFor& parallel_for,
                           const std::function<int64_t(int64_t head, const int32_t* selection)>& find) {
  std::vector<int64_t> wrong_row(view.batch * view.num_kv_heads, kNoRow);
  parallel_for(static_cast<int64_t>(wrong_row.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t head = begin; head < end; ++head) {
      wrong_row[head] = find(head, view.selection + head * view.plan->gathered_len);
    }
  });
  for (size_t head = 0; head < wrong_row.size(); ++head) {
    if (wrong_row[head] != kNoRow) throw_wrong_row(view, static_cast<int64_t>(head), wrong_row[head]);
  }
}

void check_selection(const SelectionView& view, const ParallelFor& parallel_for) {
  throw_first_wrong_row(view, parallel_for, [&](int64_t /*head*/, const int32_t* selection) {
    return first_wrong_row(*view.plan, selection);
  });
}

}  // namespace lighthouse

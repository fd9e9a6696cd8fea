// Context parallelism with more ranks than heads: how the ranks that have the same heads share their rows. Knows no
// torch.
#pragma once

#include <cstdint>
#include <vector>

#include "parallel/context_plan.h"

namespace lighthouse {

/// Queries of a run of rows, and the keys that they see: from the beginning of the first one's document.
struct RowPiece {
  Span queries, keys;  ///< keys end where the queries do
};

/// Rows of documents of so many rows each, cut into runs of as many pairs of a query and a key that it sees as can be,
/// each of at least one row. Of one document of S rows piece m is sqrt(m / R) S to sqrt((m + 1) / R) S. Throws
/// InvalidArgument where there are fewer rows than pieces.
std::vector<RowPiece> row_pieces(const std::vector<int64_t>& document_rows, int64_t num_pieces);

/// How many of `rows` each document has that has any.
std::vector<int64_t> rows_within(const std::vector<int64_t>& document_rows, const Span& rows);

}  // namespace lighthouse

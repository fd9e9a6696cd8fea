#include "parallel/row_pieces.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

double causal_pairs(double rows) { return rows * (rows + 1) / 2; }

/// How many rows have `pairs` pairs, to the nearest.
int64_t rows_of_pairs(double pairs) { return std::llround((std::sqrt(8 * pairs + 1) - 1) / 2); }

/// The row before which `share` of all pairs lie.
int64_t row_at(const std::vector<int64_t>& document_rows, double share) {
  double rest = 0;
  for (const int64_t rows : document_rows) rest += causal_pairs(static_cast<double>(rows));
  rest *= share;
  int64_t begin = 0;
  for (const int64_t rows : document_rows) {
    const double pairs = causal_pairs(static_cast<double>(rows));
    if (rest < pairs) return begin + rows_of_pairs(rest);
    rest -= pairs;
    begin += rows;
  }
  return begin;
}

/// Where the document of a row begins.
int64_t document_begin(const std::vector<int64_t>& document_rows, int64_t row) {
  int64_t begin = 0;
  for (const int64_t rows : document_rows) {
    if (row < begin + rows) break;
    begin += rows;
  }
  return begin;
}

}  // namespace

std::vector<RowPiece> row_pieces(const std::vector<int64_t>& document_rows, int64_t num_pieces) {
  const int64_t num_rows = std::accumulate(document_rows.begin(), document_rows.end(), int64_t{0});
  LIGHTHOUSE_CHECK(num_pieces >= 1 && num_pieces <= num_rows, "context parallelism: ", num_rows, " rows for ",
                   num_pieces, " ranks that have the same heads; each needs one. Take fewer ranks");
  std::vector<RowPiece> pieces;
  int64_t begin = 0;
  for (int64_t piece = 0; piece < num_pieces; ++piece) {
    const double share = static_cast<double>(piece + 1) / static_cast<double>(num_pieces);
    const int64_t last = num_rows - (num_pieces - piece - 1);  // a row for each of the pieces after
    const int64_t end = piece + 1 == num_pieces ? num_rows : std::clamp(row_at(document_rows, share), begin + 1, last);
    pieces.push_back({{begin, end}, {document_begin(document_rows, begin), end}});
    begin = end;
  }
  return pieces;
}

std::vector<int64_t> rows_within(const std::vector<int64_t>& document_rows, const Span& rows) {
  std::vector<int64_t> within;
  int64_t begin = 0;
  for (const int64_t count : document_rows) {
    const Span common = common_part({begin, begin + count}, rows);
    if (common.size() > 0) within.push_back(common.size());
    begin += count;
  }
  return within;
}

}  // namespace lighthouse

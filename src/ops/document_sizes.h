// What plans of attention for packed documents are made for, and for which documents they pay. Knows no torch.
#pragma once

#include <algorithm>
#include <bit>
#include <cstdint>
#include <vector>

namespace lighthouse::ops {

/// Numbers of a row of documents, rounded up so that few plans serve many rows. A plan costs about a tenth of a second
/// to build, and blocks of a kernel that find no rows cost next to nothing.
struct DocumentSizes {
  int64_t count;    ///< documents, a power of two; those that are not there have no rows
  int64_t longest;  ///< rows of one, a power of two
  int64_t total;    ///< rows of all, a power of two or 1.25, 1.5 or 1.75 of one: memory hangs on it

  static DocumentSizes of(const std::vector<int64_t>& num_rows) {
    constexpr int64_t kTile = 128;  // rows that cuDNN's kernels take at once
    int64_t count = 0, longest = kTile, total = kTile;
    for (const int64_t rows : num_rows) {
      count += rows > 0;
      longest = std::max(longest, rows);
      total += rows;
    }
    const auto up = [](int64_t value) { return static_cast<int64_t>(std::bit_ceil(static_cast<uint64_t>(value))); };
    const int64_t quarter = std::max<int64_t>(1, up(total) / 8);
    return {up(std::max<int64_t>(count, 1)), up(longest), (total + quarter - 1) / quarter * quarter};
  }

  /// Whether cuDNN takes less time than FlashAttention-2 for query heads of `num_channels` in all, H D: it multiplies
  /// 1.6 times as fast, but copies the heads, and has a block for each tile of as many documents as there are, all as
  /// long as the longest. So it is ahead where the mean query sees 512 keys or more, there are not many more tiles than
  /// work in them, and there is more work than a few launches take (docs/benchmarks.md, Packed documents).
  static bool favour_cudnn(const std::vector<int64_t>& num_rows, int64_t num_channels) {
    constexpr int64_t kMeanRows = 1024, kRowsOfTiles = 32, kWork = int64_t{1} << 34;
    int64_t rows_of_all = 0, pairs = 0;  // twice the pairs of query and key
    for (const int64_t rows : num_rows) {
      rows_of_all += rows;
      pairs += rows * rows;
    }
    const DocumentSizes sizes = of(num_rows);
    return pairs >= kMeanRows * rows_of_all && pairs >= kRowsOfTiles * sizes.count * sizes.longest &&
           pairs >= kWork / std::max<int64_t>(num_channels, 1);
  }
};

}  // namespace lighthouse::ops

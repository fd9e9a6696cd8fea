// What plans of attention for packed documents are made for. Knows no torch.
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
};

}  // namespace lighthouse::ops

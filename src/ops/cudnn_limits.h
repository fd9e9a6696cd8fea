// How cuDNN's repeatable backward is cut so that its workspace stays small. Knows no torch.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace lighthouse::ops {

/// cuDNN's repeatable backward keeps the gradients of all scores on Hopper: 2 bytes for each pair of a query and a key
/// that one call is given.
struct CudnnLimits {
  /// More than this is cut: into slices of as many KV heads, with their query heads, as fit in, at least one. The
  /// slices run one after another in the same workspace, on views. 1.5 GiB are two heads at S = 18,432.
  int64_t slice_bytes = int64_t{3} << 29;
  /// Where one KV head takes more than this, the rows are cut too, into blocks of queries and of keys whose pairs
  /// follow one another (cudnn_blocks.h): from S = 32,769, earlier with grouped heads.
  int64_t group_bytes = int64_t{2} << 30;

  /// Bytes for one KV head and the `group` query heads that share it.
  static double score_gradient_bytes(int64_t rows, int64_t group) {
    return 2.0 * static_cast<double>(group) * static_cast<double>(rows) * static_cast<double>(rows);
  }

  /// Rows of the blocks that seq_len rows are cut into, as few as fit; the last block may be shorter.
  int64_t block_rows(int64_t seq_len, int64_t group) const {
    constexpr int64_t kTile = 128;  // rows that cuDNN's kernels take at once
    const double most = std::sqrt(static_cast<double>(group_bytes) / score_gradient_bytes(1, group));
    if (static_cast<double>(seq_len) <= most) return seq_len;
    const auto count = static_cast<int64_t>(std::ceil(static_cast<double>(seq_len) / most));
    return ((seq_len + count - 1) / count + kTile - 1) / kTile * kTile;
  }
};

}  // namespace lighthouse::ops

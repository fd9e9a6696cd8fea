// The two linear maps between tokens and rows, and their adjoints, are two kernels:
//   rows_from_tokens   gather (section i) and scatter's adjoint: a row is a sum over a run of tokens;
//   tokens_from_rows   scatter (section vi) and gather's adjoint: a token is a sum over at most one row of each level.
// Every element is written once, by one thread, in a fixed order of additions: no atomics, the same bits on every run.
#pragma once

#include <algorithm>
#include <cstdint>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/vector.cuh"
#include "lighthouse/device_plan.h"

namespace lighthouse {

/// Which of the two pairs of maps: kMean pools windows (gather and its adjoint, weight p^-l), kShifted adds a row to
/// the p^l tokens from the last of its window on (scatter and its adjoint, weight 1).
enum class RowMap { kMean, kShifted };

/// One tensor: its tokens and its rows, one of them the source.
template <typename TokenVoid, typename RowVoid>
struct RowMapTensor {
  BasicView<TokenVoid> tokens;  ///< [B, N, H, D]
  BasicView<RowVoid> rows;      ///< [B, S, H, D]
  const void* coarse;           ///< kMean from tokens: means of the coarsest entries [B, num_coarse, H, D], or null
  int32_t num_heads;            ///< H of this tensor
};

template <typename TokenVoid, typename RowVoid>
struct RowMapArgs {
  RowMapTensor<TokenVoid, RowVoid> tensors[3];
  const int32_t* index;  ///< rows_from_tokens: selection [B, H_kv, S]; tokens_from_rows: slots [B, H_kv, num_slots]
  DevicePlan plan;
  int32_t batch, num_kv_heads, head_dim;
};
using RowsFromTokens = RowMapArgs<const void, void>;
using TokensFromRows = RowMapArgs<void, const void>;

/// Copies what every stage's parameters have in common.
template <typename Args, typename Params>
void set_common(Args& args, const Params& params, const DevicePlan& plan) {
  args.plan = plan;
  args.batch = static_cast<int32_t>(params.batch);
  args.num_kv_heads = static_cast<int32_t>(params.num_kv_heads);
  args.head_dim = static_cast<int32_t>(params.head_dim);
}

inline constexpr int kRowMapThreads = 256;

/// A thread owns kVec channels of one (row, head): it reads the tokens of the row's window or range and writes once.
/// grid = (row, head and channel blocks, tensors, batch); heads of one row are neighbours, so that a block's reads
/// share the memory pages of a few tokens.
template <typename T, int kVec, RowMap kMap>
__global__ __launch_bounds__(kRowMapThreads) void rows_from_tokens_kernel(const __grid_constant__ RowsFromTokens args) {
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const uint32_t vecs = args.head_dim / kVec;
  const uint32_t item = blockIdx.x * kRowMapThreads + threadIdx.x;
  const uint32_t channel = item % vecs * kVec;
  const uint32_t head = item / vecs % tensor.num_heads;
  const int64_t row = item / vecs / tensor.num_heads;
  if (row >= plan.gathered_len) return;
  const int64_t kv_head = head / (tensor.num_heads / args.num_kv_heads);
  const DeviceDocument& document = plan.find(&DeviceDocument::row_begin, row);
  const Pyramid pyramid = plan.pyramid(document);

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const int64_t flat = args.index[(batch * args.num_kv_heads + kv_head) * plan.gathered_len + row];
    const Entry entry = entry_at(pyramid, flat - document.entry_begin);
    Sum<T> sum[kVec] = {};
    Sum<T> scale = 1;
    const bool pooled = kMap == RowMap::kMean && tensor.coarse != nullptr && entry.level == pyramid.num_levels - 1;
    if (pooled) {
      const int64_t coarse = batch * plan.num_coarse + document.coarse_begin + entry.index;
      const T* mean =
          static_cast<const T*>(tensor.coarse) + (coarse * tensor.num_heads + head) * args.head_dim + channel;
      add_scaled<T, kVec>(sum, load_vec<T, kVec>(mean), 1);
    } else {
      TokenRange range = scatter_range(pyramid, entry);
      if (kMap == RowMap::kMean) {
        range.begin = min(entry.index << pyramid.shift(entry.level), pyramid.seq_len);
        range.end = min((entry.index + 1) << pyramid.shift(entry.level), pyramid.seq_len);
        scale = Sum<T>(1) / pyramid.window(entry.level);
      }
      const T* token = static_cast<const T*>(tensor.tokens.data) + batch * tensor.tokens.batch_stride +
                       (document.token_begin + range.begin) * tensor.tokens.seq_stride +
                       head * tensor.tokens.head_stride + channel;
      const int32_t count = static_cast<int32_t>(range.end - range.begin);
#pragma unroll 4
      for (int32_t t = 0; t < count; ++t) {
        add_scaled<T, kVec>(sum, load_vec<T, kVec>(token + t * tensor.tokens.seq_stride), 1);
      }
    }
    T* out = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride + row * tensor.rows.seq_stride +
             head * tensor.rows.head_stride + channel;
    store_vec(out, round_vec<T, kVec>(sum, scale));
  }
}

inline constexpr int kTokensPerThread = 4;

/// A thread owns kVec channels of kTokensPerThread neighbouring tokens of one head: it reads at most kLevels rows for
/// each and writes each once. grid = (token, head and channel blocks, tensors, batch).
template <typename T, int kVec, RowMap kMap, int kLevels>
__global__ __launch_bounds__(kRowMapThreads) void tokens_from_rows_kernel(const __grid_constant__ TokensFromRows args) {
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const uint32_t vecs = args.head_dim / kVec;
  const uint32_t item = blockIdx.x * kRowMapThreads + threadIdx.x;
  const uint32_t channel = item % vecs * kVec;
  const uint32_t head = item / vecs % tensor.num_heads;
  const int64_t first_token = int64_t{item / vecs / tensor.num_heads} * kTokensPerThread;
  if (first_token >= plan.seq_len) return;
  const int64_t kv_head = head / (tensor.num_heads / args.num_kv_heads);

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const int32_t* slots = args.index + (batch * args.num_kv_heads + kv_head) * plan.num_slots;
    const T* rows = static_cast<const T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
                    head * tensor.rows.head_stride + channel;
    T* out = static_cast<T*>(tensor.tokens.data) + batch * tensor.tokens.batch_stride +
             head * tensor.tokens.head_stride + channel;
    int32_t row[kTokensPerThread][kLevels];
#pragma unroll
    for (int t = 0; t < kTokensPerThread; ++t) {
      const int64_t token = first_token + t;
      const bool real = token < plan.seq_len;
      const DeviceDocument& document = plan.find(&DeviceDocument::token_begin, real ? token : first_token);
      const Pyramid pyramid = plan.pyramid(document);
      const int64_t local = token - document.token_begin;
      int64_t slot_begin = document.slot_begin;
#pragma unroll
      for (int level = 0; level < kLevels; ++level) {
        row[t][level] = kNoRow;
        if (level < pyramid.num_levels && real) {
          const int64_t entry =
              kMap == RowMap::kMean ? local >> pyramid.shift(level) : scattered_entry(pyramid, level, local);
          if (entry >= 0) row[t][level] = slots[slot_begin + entry];
          slot_begin += pyramid.level_size(level);
        }
      }
    }
#pragma unroll
    for (int t = 0; t < kTokensPerThread; ++t) {
      if (first_token + t >= plan.seq_len) break;
      Sum<T> sum[kVec] = {};
#pragma unroll
      for (int level = 0; level < kLevels; ++level) {
        if (row[t][level] != kNoRow) {
          const Sum<T> scale = kMap == RowMap::kMean ? Sum<T>(1) / (int64_t{1} << (level * plan.log2_pool)) : Sum<T>(1);
          add_scaled<T, kVec>(sum, load_vec<T, kVec>(rows + row[t][level] * tensor.rows.seq_stride), scale);
        }
      }
      store_vec(out + (first_token + t) * tensor.tokens.seq_stride, round_vec<T, kVec>(sum, 1));
    }
  }
}

/// Channels that one 16-byte access holds where all views and the head dimension allow it, else 1.
template <typename T, typename TokenVoid, typename RowVoid>
bool vectorizable(const RowMapArgs<TokenVoid, RowVoid>& args, int num_tensors) {
  bool aligned = args.head_dim * sizeof(T) % 16 == 0;
  for (int i = 0; i < num_tensors; ++i) {
    aligned = aligned && rows_aligned(args.tensors[i].tokens, sizeof(T), 16) &&
              rows_aligned(args.tensors[i].rows, sizeof(T), 16);
  }
  return aligned;
}

/// Blocks for `positions` rows or token groups of the tensor with the most heads.
template <typename Args>
dim3 row_map_grid(const Args& args, int num_tensors, int64_t positions, int vec) {
  int64_t num_heads = 0;
  for (int i = 0; i < num_tensors; ++i) num_heads = std::max<int64_t>(num_heads, args.tensors[i].num_heads);
  const int64_t blocks = ceil_div(positions * num_heads * (args.head_dim / vec), kRowMapThreads);
  return dim3(static_cast<unsigned>(blocks), num_tensors, batch_blocks(args.batch));
}

template <RowMap kMap>
void launch_rows_from_tokens(const RowsFromTokens& args, int num_tensors, DType dtype, CudaStream stream) {
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const auto launch = [&](auto vec) {
      constexpr int kVec = decltype(vec)::value;
      const dim3 grid = row_map_grid(args, num_tensors, args.plan.gathered_len, kVec);
      rows_from_tokens_kernel<T, kVec, kMap><<<grid, kRowMapThreads, 0, stream>>>(args);
    };
    if (vectorizable<T>(args, num_tensors)) {
      launch(std::integral_constant<int, 16 / sizeof(T)>{});
    } else {
      launch(std::integral_constant<int, 1>{});
    }
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

template <RowMap kMap>
void launch_tokens_from_rows(const TokensFromRows& args, int num_tensors, DType dtype, CudaStream stream) {
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    const auto launch = [&](auto vec, auto levels) {
      constexpr int kVec = decltype(vec)::value;
      const dim3 grid = row_map_grid(args, num_tensors, ceil_div(args.plan.seq_len, kTokensPerThread), kVec);
      tokens_from_rows_kernel<T, kVec, kMap, decltype(levels)::value><<<grid, kRowMapThreads, 0, stream>>>(args);
    };
    const auto launch_levels = [&](auto vec) {
      if (args.plan.num_levels <= 3) {
        launch(vec, std::integral_constant<int, 3>{});
      } else {
        launch(vec, std::integral_constant<int, kMaxLevels>{});
      }
    };
    if (vectorizable<T>(args, num_tensors)) {
      launch_levels(std::integral_constant<int, 16 / sizeof(T)>{});
    } else {
      launch_levels(std::integral_constant<int, 1>{});
    }
  });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse

// Gather (section i) and scatter's adjoint (section vii): every row is a sum over an aligned window of tokens.
#pragma once

#include "cuda/rows.cuh"
#include "cuda/window_sum.cuh"

namespace lighthouse {

/// What a group of lanes sums: every unit of a document, or the windows of F tokens that select_entries lists alone,
/// whose own rows are copied from their means by another kernel.
enum class Units { kAll, kExpanded };

/// A group of lanes owns a unit of one head, a lane kVec channels of it. Tokens are read once, and with kTurned turned
/// then; a row is written once, by the group whose window it sums. grid: row_map_grid over units or expanded windows.
template <typename T, int kVec, int kLanes, RowMap kMap, Units kUnits, bool kTurned>
__global__ void __launch_bounds__(kRowMapThreads, kTurned ? kTurnBlocks : 5)
    rows_from_units_kernel(const __grid_constant__ RowsFromTokens args) {
  using Nodes = NodeRows<kLog2Octet, kLanes>;
  using Channels = HeadChannels<T, kVec, kLanes, kTurned>;
  __shared__ typename WindowSum<T, kVec, kRowMapThreads>::Shared waiting;
  __shared__ AngleTileIf<kTurned, kOctet, Channels::kHalf> angles[kRowMapThreads / kLanes];  // a group's own
  constexpr int kShift = kShiftOf<kMap>;
  constexpr bool kListed = kUnits == Units::kExpanded;
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const LaneGroup<kLanes> group;
  const WorkItem item = work_item<kLanes, kVec>(tensor.num_heads, args.channel_blocks);
  if (item.position >= (kListed ? plan.num_expanded : plan.num_units)) return;
  const auto kv_head = static_cast<int32_t>(tensor.group.quotient(item.head));
  const bool own_channels = item.channel < args.head_dim;
  const bool turns = kTurned && blockIdx.y < kTurnedTensors;
  auto& own_angles = angles[threadIdx.x / kLanes];
  const int32_t channel = Channels::first(item.channel);
  const int log2_coarse = (plan.num_levels - 1) * plan.log2_pool;
  const int log2_unit_len = log2_unit(plan.num_levels, plan.log2_pool);
  const int num_octets = 1 << (log2_unit_len - kLog2Octet);

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const int64_t head_of_batch = batch * args.num_kv_heads + kv_head;
    const int32_t number = kListed ? args.expanded[head_of_batch * plan.num_expanded + item.position] : item.position;
    const DeviceDocument document =
        plan.find(kListed ? &DeviceDocument::coarse_begin : &DeviceDocument::unit_begin, number);
    const int32_t begin =
        kListed ? (number - document.coarse_begin) << log2_coarse : (number - document.unit_begin) << log2_unit_len;
    const int32_t first = begin & ~(kOctet - 1);  // a window shorter than an octet may stand inside one
    const unsigned wanted =
        kListed && log2_coarse < kLog2Octet ? ((1U << (1 << log2_coarse)) - 1) << (begin - first) : 0xFFU;
    const int32_t* slots = args.slots + head_of_batch * plan.num_slots + document.slot_begin;
    const T* tokens = static_cast<const T*>(tensor.tokens.data) + batch * tensor.tokens.batch_stride +
                      item.head * tensor.tokens.head_stride + channel +
                      (int64_t{document.token_begin} + first - kShift) * tensor.tokens.seq_stride;
    T* rows = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
              item.head * tensor.rows.head_stride + channel;
    const auto write = [&](int32_t row, const Vec<T, kVec>& value) {
      if (row != kNoRow && own_channels) Channels::store(rows + int64_t{row} * tensor.rows.seq_stride, value);
    };
    const auto write_sum = [&](int32_t row, const Sum<T>(&sum)[kVec], int log2) {
      const Sum<T> scale = kMap == RowMap::kMean ? Sum<T>(1) / static_cast<Sum<T>>(1 << log2) : Sum<T>(1);
      write(row, round_vec<T, kVec>(sum, scale));
    };
    WindowSum<T, kVec, kRowMapThreads> sum(waiting);
    for (int octet = 0; octet < num_octets; ++octet) {
      const int32_t position = first + octet * kOctet;
      Nodes nodes;
      nodes.template load<kShift>(slots, plan, document, position, wanted, group);
      Octet<T, kVec> values;
      if constexpr (kTurned) {
        if (turns) {
          __syncwarp();  // the octet before is done
          own_angles.template begin_load<kLanes>(args.turn, int64_t{document.token_begin} + position, plan.seq_len,
                                                 group.lane);
        }
      }
      values.load(Channels(), tokens + int64_t{octet} * kOctet * tensor.tokens.seq_stride, tensor.tokens.seq_stride,
                  position - kShift, document.seq_len, own_channels, wanted);
      if constexpr (kTurned) {
        if (turns) {
          own_angles.wait();
          __syncwarp();
          values.turn(own_angles, channel);
        }
      }
      const unsigned in_warp = nodes.in_warp();
      if ((in_warp & 0xFF) != 0) {
#pragma unroll
        for (int t = 0; t < kOctet; ++t) write(nodes.row(t), values.value[t]);
      }
      const auto no_visit = [](int, const Sum<T>(&)[kVec]) {};
      sum.add_octet(values, octet, num_octets, no_visit, [&](int log2, int index, const Sum<T>(&window)[kVec]) {
        if (kListed && log2 == log2_coarse) return;
        if (log2 <= kLog2Octet) {
          const int node = Nodes::begin(log2) + index;
          if (in_warp >> node & 1) write_sum(nodes.row(node), window, log2);
          return;
        }
        const int level = plan.level_of[log2];
        const int32_t entry = (position >> log2) - kShift;
        if (level < 0 || entry < 0 || entry >= plan.size_of(document, level)) return;
        write_sum(slots[plan.begin_of(document, level) + entry], window, log2);
      });
    }
  }
}

/// Copies the means of coarsest entries to their rows. A group of lanes owns four entries of one head. grid:
/// row_map_grid over fours of entries.
inline constexpr int kCopied = 4;
template <typename T, int kVec, int kLanes>
__global__ void __launch_bounds__(kRowMapThreads, 8) copy_coarse_kernel(const __grid_constant__ RowsFromTokens args) {
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const WorkItem item = work_item<kLanes, kVec>(tensor.num_heads, args.channel_blocks);
  const int32_t begin = item.position * kCopied;
  const int32_t count = min(kCopied, plan.num_coarse - begin);
  if (item.channel >= args.head_dim) return;
  const auto kv_head = static_cast<int32_t>(tensor.group.quotient(item.head));
  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    int32_t row[kCopied];
    Vec<T, kVec> mean[kCopied];
#pragma unroll
    for (int i = 0; i < kCopied; ++i) {
      row[i] = kNoRow;
      if (i >= count) continue;
      const int32_t entry = begin + i;
      const DeviceDocument document = plan.find(&DeviceDocument::coarse_begin, entry);
      if (document.num_levels < plan.num_levels) continue;  // attended to in full
      const int32_t slot =
          document.slot_begin + plan.begin_of(document, plan.num_levels - 1) + entry - document.coarse_begin;
      row[i] = args.slots[(batch * args.num_kv_heads + kv_head) * plan.num_slots + slot];
      const int64_t position = (batch * plan.num_coarse + entry) * tensor.num_heads.divisor() + item.head;
      mean[i] = load_vec<T, kVec>(static_cast<const T*>(tensor.coarse) + position * args.head_dim + item.channel);
    }
    T* rows = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
              item.head * tensor.rows.head_stride + item.channel;
#pragma unroll
    for (int i = 0; i < kCopied; ++i) {
      if (row[i] != kNoRow) store_vec(rows + int64_t{row[i]} * tensor.rows.seq_stride, mean[i]);
    }
  }
}

/// What a row of a document stands for.
__device__ inline Entry entry_of_row(const RowsFromTokens& args, const Pyramid& pyramid, const DeviceDocument& document,
                                     int64_t batch, int32_t kv_head, int32_t row) {
  const int64_t flat = args.selection[(batch * args.num_kv_heads + kv_head) * args.plan.gathered_len + row];
  return entry_at(pyramid, flat - document.entry_begin);
}

/// A thread owns kVec channels of one (row, head) and reads the tokens of the row one after another: for windows that
/// are longer than a unit. grid: row_map_grid over rows.
template <typename T, int kVec, int kLanes, RowMap kMap>
__global__ void __launch_bounds__(kRowMapThreads, 8)
    rows_from_tokens_kernel(const __grid_constant__ RowsFromTokens args) {
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const WorkItem item = work_item<kLanes, kVec>(tensor.num_heads, args.channel_blocks);
  if (item.position >= plan.gathered_len || item.channel >= args.head_dim) return;
  const auto kv_head = static_cast<int32_t>(tensor.group.quotient(item.head));
  const DeviceDocument document = plan.find(&DeviceDocument::row_begin, item.position);
  const Pyramid pyramid = plan.pyramid(document);

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const Entry entry = entry_of_row(args, pyramid, document, batch, kv_head, item.position);
    T* out = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
             item.position * tensor.rows.seq_stride + item.head * tensor.rows.head_stride + item.channel;
    if (kMap == RowMap::kMean && tensor.coarse != nullptr && entry.level == plan.num_levels - 1) {
      const int64_t coarse = batch * plan.num_coarse + document.coarse_begin + entry.index;
      const T* mean = static_cast<const T*>(tensor.coarse) +
                      (coarse * tensor.num_heads.divisor() + item.head) * args.head_dim + item.channel;
      store_vec(out, load_vec<T, kVec>(mean));
      continue;
    }
    const TokenRange range = kMap == RowMap::kMean ? entry_window(pyramid, entry) : scatter_range(pyramid, entry);
    const Sum<T> scale = kMap == RowMap::kMean ? Sum<T>(1) / static_cast<Sum<T>>(pyramid.window(entry.level)) : 1;
    const T* token = static_cast<const T*>(tensor.tokens.data) + batch * tensor.tokens.batch_stride +
                     (document.token_begin + range.begin) * tensor.tokens.seq_stride +
                     item.head * tensor.tokens.head_stride + item.channel;
    Sum<T> sum[kVec] = {};
#pragma unroll 4
    for (int64_t t = range.begin; t < range.end; ++t, token += tensor.tokens.seq_stride) {
      add_scaled<T, kVec>(sum, load_vec<T, kVec>(token), 1);
    }
    store_vec(out, round_vec<T, kVec>(sum, scale));
  }
}

/// Rows of entries that hold no token, which no unit writes, are zero. A thread owns one channel of one (row, head).
/// grid: row_map_grid over rows.
template <typename T>
__global__ __launch_bounds__(kRowMapThreads) void clear_padding_rows_kernel(
    const __grid_constant__ RowsFromTokens args) {
  constexpr int kLanes = 32;
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const WorkItem item = work_item<kLanes, 1>(tensor.num_heads, args.channel_blocks);
  if (item.position >= plan.gathered_len) return;
  const auto kv_head = static_cast<int32_t>(tensor.group.quotient(item.head));
  const DeviceDocument document = plan.find(&DeviceDocument::row_begin, item.position);
  const Pyramid pyramid = plan.pyramid(document);
  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const Entry entry = entry_of_row(args, pyramid, document, batch, kv_head, item.position);
    if (entry.index < pyramid.level_size(entry.level)) continue;
    T* out = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
             item.position * tensor.rows.seq_stride + item.head * tensor.rows.head_stride;
    for (int32_t channel = item.channel; channel < args.head_dim; channel += kLanes) out[channel] = narrow<T>(0);
  }
}

/// Whether rows are summed by halves of units of at most 64 tokens, else token after token.
inline bool sums_by_unit(const DevicePlan& plan) { return (plan.num_levels - 1) * plan.log2_pool <= kLog2MaxUnit; }

template <typename T, int kVec, int kLanes, RowMap kMap>
void launch_units(const RowsFromTokens& args, int num_tensors, CudaStream stream) {
  const DevicePlan& plan = args.plan;
  if constexpr (kMap == RowMap::kMean) {
    if (args.expanded != nullptr) {
      const dim3 copies = row_map_grid(args, num_tensors, ceil_div(plan.num_coarse, kCopied), kLanes);
      copy_coarse_kernel<T, kVec, kLanes><<<copies, kRowMapThreads, 0, stream>>>(args);
      LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
      const dim3 grid = row_map_grid(args, num_tensors, plan.num_expanded, kLanes);
      dispatch_turn<T, kVec, kMap>(args, [&](auto turned) {
        rows_from_units_kernel<T, kVec, kLanes, kMap, Units::kExpanded, turned.value>
            <<<grid, kRowMapThreads, 0, stream>>>(args);
      });
      LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
      return;
    }
  }
  const dim3 grid = row_map_grid(args, num_tensors, plan.num_units, kLanes);
  rows_from_units_kernel<T, kVec, kLanes, kMap, Units::kAll, false><<<grid, kRowMapThreads, 0, stream>>>(args);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

template <RowMap kMap>
void launch_rows_from_tokens(RowsFromTokens args, int num_tensors, DType dtype, CudaStream stream) {
  const DevicePlan& plan = args.plan;
  const bool by_unit = sums_by_unit(plan);
  LIGHTHOUSE_CHECK(args.turn.cos == nullptr || (by_unit && args.expanded != nullptr),
                   "gather: tokens are turned in windows of at most ", 1 << kLog2MaxUnit,
                   " tokens, after pool_and_score");
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    dispatch_lanes<T>(args, num_tensors, [&](auto vec, auto lanes) {
      if (by_unit) return launch_units<T, vec.value, lanes.value, kMap>(args, num_tensors, stream);
      const dim3 grid = row_map_grid(args, num_tensors, plan.gathered_len, lanes.value);
      rows_from_tokens_kernel<T, vec.value, lanes.value, kMap><<<grid, kRowMapThreads, 0, stream>>>(args);
      LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
    });
    if (by_unit && plan.has_padding) {
      args.channel_blocks = FastDivide(1);
      const dim3 grid = row_map_grid(args, num_tensors, plan.gathered_len, 32);
      clear_padding_rows_kernel<T><<<grid, kRowMapThreads, 0, stream>>>(args);
      LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
    }
  });
}

}  // namespace lighthouse

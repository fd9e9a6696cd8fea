// Gather (section i) and scatter's adjoint (section vii): every row is a sum over an aligned window of tokens.
#pragma once

#include "cuda/rows.cuh"
#include "cuda/window_sum.cuh"

namespace lighthouse {

/// Bit t: token t of an octet lies in a coarsest window that was expanded, whose first child then has a row; for
/// coarsest windows shorter than an octet. `present` is NodeRows::present.
__device__ __forceinline__ unsigned expanded_tokens(const DevicePlan& plan, unsigned present) {
  const int log2_coarse = (plan.num_levels - 1) * plan.log2_pool;
  const int first_child = node_begin(log2_coarse - plan.log2_pool);
  unsigned tokens = 0;
#pragma unroll
  for (int t = 0; t < kOctet; ++t) {
    tokens |= (present >> (first_child + ((t >> log2_coarse) << plan.log2_pool)) & 1) << t;
  }
  return tokens;
}

/// A group of lanes owns a unit of one head, a lane kVec channels of it. With coarse means (of a selection that
/// select_entries made) only windows that were expanded are read; else all are. Tokens are read once; a row is written
/// once, by the group whose window it sums. grid: row_map_grid over units.
template <typename T, int kVec, int kLanes, RowMap kMap>
__global__ void __launch_bounds__(kRowMapThreads, 5)
    rows_from_units_kernel(const __grid_constant__ RowsFromTokens args) {
  __shared__ typename WindowSum<T, kVec, kRowMapThreads>::Shared waiting;
  constexpr int kShift = kShiftOf<kMap>;
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const LaneGroup<kLanes> group;
  const WorkItem item = work_item<kLanes, kVec>(tensor.num_heads, args.channel_blocks);
  if (item.position >= plan.num_units) return;
  const DeviceDocument document = plan.find(&DeviceDocument::unit_begin, item.position);
  const int log2_coarse = (plan.num_levels - 1) * plan.log2_pool;
  const int log2_unit_len = log2_unit(plan.num_levels, plan.log2_pool);
  const int32_t first = (item.position - document.unit_begin) << log2_unit_len;
  const auto kv_head = static_cast<int32_t>(tensor.group.quotient(item.head));
  const bool own_channels = item.channel < args.head_dim;
  const bool pooled = kMap == RowMap::kMean && tensor.coarse != nullptr && plan.num_levels > 1;

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const int32_t* slots = args.slots + (batch * args.num_kv_heads + kv_head) * plan.num_slots + document.slot_begin;
    const T* tokens = static_cast<const T*>(tensor.tokens.data) + batch * tensor.tokens.batch_stride +
                      item.head * tensor.tokens.head_stride + item.channel +
                      (int64_t{document.token_begin} + first - kShift) * tensor.tokens.seq_stride;
    T* rows = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
              item.head * tensor.rows.head_stride + item.channel;
    const T* coarse = nullptr;  // of the coarsest entry that begins at `first`
    if (pooled) {
      const int64_t entry = batch * plan.num_coarse + document.coarse_begin + (first >> log2_coarse);
      coarse = static_cast<const T*>(tensor.coarse) + (entry * tensor.num_heads.divisor() + item.head) * args.head_dim +
               item.channel;
    }
    const auto write = [&](int32_t row, const Vec<T, kVec>& value) {
      if (own_channels) store_vec(rows + int64_t{row} * tensor.rows.seq_stride, value);
    };
    const auto mean_or_sum = [&](const Sum<T>(&sum)[kVec], int log2) {
      const Sum<T> scale = kMap == RowMap::kMean ? Sum<T>(1) / static_cast<Sum<T>>(1 << log2) : Sum<T>(1);
      return round_vec<T, kVec>(sum, scale);
    };
    const auto coarse_mean = [&](int32_t index) {
      return own_channels ? load_vec<T, kVec>(coarse + int64_t{index} * tensor.num_heads.divisor() * args.head_dim)
                          : Vec<T, kVec>{};
    };

    // Windows of at least an octet that were not expanded have their coarsest row only.
    if (pooled && log2_coarse >= kLog2Octet) {
      const int32_t entry = first >> log2_coarse;
      if (entry >= plan.size_of(document, plan.num_levels - 1)) continue;
      const int32_t row = slots[plan.begin_of(document, plan.num_levels - 1) + entry];
      const int32_t child = slots[plan.begin_of(document, plan.num_levels - 2) + (entry << plan.log2_pool)];
      const Vec<T, kVec> mean = coarse_mean(0);
      if (row != kNoRow) write(row, mean);
      if (child == kNoRow) continue;
    }

    WindowSum<T, kVec, kRowMapThreads> sum(waiting);
    const int num_octets = 1 << (log2_unit_len - kLog2Octet);
    for (int octet = 0; octet < num_octets; ++octet) {
      const int32_t position = first + octet * kOctet;
      NodeRows<kLanes> nodes;
      nodes.template load<kShift>(slots, plan, document, position, group);
      unsigned wanted = 0xFF;
      if (pooled && log2_coarse < kLog2Octet) wanted = expanded_tokens(plan, nodes.present(group));
      Octet<T, kVec> values;
      values.load(tokens + int64_t{octet} * kOctet * tensor.tokens.seq_stride, tensor.tokens.seq_stride,
                  position - kShift, document.seq_len, own_channels, wanted);
      const unsigned present = nodes.present(group);
      if ((present & 0xFF) != 0) {
#pragma unroll
        for (int t = 0; t < kOctet; ++t) {
          if (present >> t & 1) write(nodes.row(t, group), values.value[t]);
        }
      }
      const auto no_visit = [](int, const Sum<T>(&)[kVec]) {};
      sum.add_octet(values, octet, num_octets, no_visit, [&](int log2, int index, const Sum<T>(&window)[kVec]) {
        if (pooled && log2 == log2_coarse && log2 >= kLog2Octet) return;  // written above
        if (log2 <= kLog2Octet) {
          const int node = node_begin(log2) + index;
          if (!(present >> node & 1)) return;
          const bool from_coarse = pooled && log2 == log2_coarse;
          write(nodes.row(node, group), from_coarse ? coarse_mean(index) : mean_or_sum(window, log2));
          return;
        }
        const int level = plan.level_of[log2];
        const int32_t entry = (position >> log2) - kShift;
        if (level < 0 || entry < 0 || entry >= plan.size_of(document, level)) return;
        const int32_t row = slots[plan.begin_of(document, level) + entry];
        if (row != kNoRow) write(row, mean_or_sum(window, log2));
      });
    }
  }
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
    const int64_t flat = args.selection[(batch * args.num_kv_heads + kv_head) * plan.gathered_len + item.position];
    const Entry entry = entry_at(pyramid, flat - document.entry_begin);
    T* out = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
             item.position * tensor.rows.seq_stride + item.head * tensor.rows.head_stride + item.channel;
    if (kMap == RowMap::kMean && tensor.coarse != nullptr && entry.level == pyramid.num_levels - 1) {
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
    const int64_t flat = args.selection[(batch * args.num_kv_heads + kv_head) * plan.gathered_len + item.position];
    const Entry entry = entry_at(pyramid, flat - document.entry_begin);
    if (entry.index < pyramid.level_size(entry.level)) continue;
    T* out = static_cast<T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
             item.position * tensor.rows.seq_stride + item.head * tensor.rows.head_stride;
    for (int32_t channel = item.channel; channel < args.head_dim; channel += kLanes) out[channel] = narrow<T>(0);
  }
}

template <RowMap kMap>
void launch_rows_from_tokens(RowsFromTokens args, int num_tensors, DType dtype, CudaStream stream) {
  const DevicePlan& plan = args.plan;
  const bool by_unit = (plan.num_levels - 1) * plan.log2_pool <= kLog2MaxUnit;
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    dispatch_lanes<T>(args, num_tensors, [&](auto vec, auto lanes) {
      if (by_unit) {
        const dim3 grid = row_map_grid(args, num_tensors, plan.num_units, lanes.value);
        rows_from_units_kernel<T, vec.value, lanes.value, kMap><<<grid, kRowMapThreads, 0, stream>>>(args);
      } else {
        const dim3 grid = row_map_grid(args, num_tensors, plan.gathered_len, lanes.value);
        rows_from_tokens_kernel<T, vec.value, lanes.value, kMap><<<grid, kRowMapThreads, 0, stream>>>(args);
      }
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

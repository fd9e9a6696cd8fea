// Scatter (section vi) and gather's adjoint (section vii): every token is a sum over at most one row of each level.
#pragma once

#include "cuda/rows.cuh"

namespace lighthouse {

/// Bit t: token t of the octet that starts at `token` is one of the document's.
__device__ __forceinline__ unsigned tokens_inside(int32_t token, int32_t seq_len) {
  const unsigned from = token >= 0 ? 0xFFU : 0xFFU << -token;
  const int32_t left = seq_len - token;
  return from & (left >= kOctet ? 0xFFU : left <= 0 ? 0U : (1U << left) - 1);
}

/// A group of lanes owns an octet of one head, a lane kVec channels of it. The row of a window is read once for all its
/// tokens in the octet; tokens are written once. Sums start at the coarsest level. grid: row_map_grid over octets.
template <typename T, int kVec, int kLanes, RowMap kMap>
__global__ void __launch_bounds__(kRowMapThreads, kLanes == 8 ? 5 : 6)
    tokens_from_rows_kernel(const __grid_constant__ TokensFromRows args) {
  constexpr int kShift = kShiftOf<kMap>;
  const auto& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const LaneGroup<kLanes> group;
  const WorkItem item = work_item<kLanes, kVec>(tensor.num_heads, args.channel_blocks);
  if (item.position >= plan.num_octets) return;
  const DeviceDocument document = plan.find(&DeviceDocument::octet_begin, item.position);
  const int32_t first = (item.position - document.octet_begin) << kLog2Octet;
  const auto kv_head = static_cast<int32_t>(tensor.group.quotient(item.head));
  const bool own_channels = item.channel < args.head_dim;
  const unsigned inside = own_channels ? tokens_inside(first - kShift, document.seq_len) : 0;

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const int32_t* slots = args.slots + (batch * args.num_kv_heads + kv_head) * plan.num_slots + document.slot_begin;
    const T* rows = static_cast<const T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
                    item.head * tensor.rows.head_stride + item.channel;
    T* out = static_cast<T*>(tensor.tokens.data) + batch * tensor.tokens.batch_stride +
             item.head * tensor.tokens.head_stride + item.channel +
             (int64_t{document.token_begin} + first - kShift) * tensor.tokens.seq_stride;
    NodeRows<kLanes> nodes;
    nodes.template load<kShift>(slots, plan, document, first, group);
    int32_t wide_row = kNoRow;  // lane l: the row of level l, whose windows are longer than the octet
    const int log2_wide = group.lane * plan.log2_pool;
    if (group.lane < plan.num_levels && log2_wide > kLog2Octet) {
      const int32_t entry = (first >> log2_wide) - kShift;
      if (entry >= 0 && entry < plan.size_of(document, group.lane)) {
        wide_row = slots[plan.begin_of(document, group.lane) + entry];
      }
    }

    const auto load_row = [&](int32_t row) {
      return own_channels ? load_vec<T, kVec>(rows + int64_t{row} * tensor.rows.seq_stride) : Vec<T, kVec>{};
    };
    const auto add = [&](Sum<T>(&sum)[kVec], const Vec<T, kVec>& row, int log2) {
      constexpr bool kScaled = kMap == RowMap::kMean;
      add_scaled<T, kVec>(sum, row, kScaled ? Sum<T>(1) / static_cast<Sum<T>>(int64_t{1} << log2) : Sum<T>(1));
    };
    const auto copy = [](Sum<T>(&to)[kVec], const Sum<T>(&from)[kVec]) {
#pragma unroll
      for (int i = 0; i < kVec; ++i) to[i] = from[i];
    };
    const auto store = [&](int t, const Sum<T>(&sum)[kVec]) {
      if (inside >> t & 1) store_vec(out + t * tensor.tokens.seq_stride, round_vec<T, kVec>(sum, 1));
    };
    const unsigned present = nodes.present(group);
    const auto node_row = [&](int log2, int index) {  // zero where there is none
      const int node = node_begin(log2) + index;
      Vec<T, kVec> row{};
      if (present >> node & 1) row = load_row(nodes.row(node, group));
      return row;
    };

    Sum<T> octet[kVec] = {};
    for (unsigned levels = group.ballot(wide_row != kNoRow); levels != 0;) {
      const int level = 31 - __clz(static_cast<int>(levels));
      levels ^= 1U << level;
      add(octet, load_row(group.broadcast(wide_row, level)), level * plan.log2_pool);
    }
    if (present >> node_begin(3) & 1) add(octet, node_row(3, 0), 3);
#pragma unroll
    for (int four = 0; four < 2; ++four) {
      Sum<T> of_four[kVec];
      copy(of_four, octet);
      if (present >> (node_begin(2) + four) & 1) add(of_four, node_row(2, four), 2);
      if ((present & (0xFU << 4 * four | 0x3U << (node_begin(1) + 2 * four))) == 0) {
#pragma unroll
        for (int t = 4 * four; t < 4 * four + 4; ++t) store(t, of_four);
        continue;
      }
#pragma unroll
      for (int two = 2 * four; two < 2 * four + 2; ++two) {
        const Vec<T, kVec> one_rows[2] = {node_row(0, 2 * two), node_row(0, 2 * two + 1)};
        Sum<T> of_two[kVec];
        copy(of_two, of_four);
        if (present >> (node_begin(1) + two) & 1) add(of_two, node_row(1, two), 1);
#pragma unroll
        for (int one = 0; one < 2; ++one) {
          Sum<T> of_one[kVec];
          copy(of_one, of_two);
          add(of_one, one_rows[one], 0);
          store(2 * two + one, of_one);
        }
      }
    }
  }
}

template <RowMap kMap>
void launch_tokens_from_rows(TokensFromRows args, int num_tensors, DType dtype, CudaStream stream) {
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    dispatch_lanes<T>(args, num_tensors, [&](auto vec, auto lanes) {
      const dim3 grid = row_map_grid(args, num_tensors, args.plan.num_octets, lanes.value);
      tokens_from_rows_kernel<T, vec.value, lanes.value, kMap><<<grid, kRowMapThreads, 0, stream>>>(args);
      LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
    });
  });
}

}  // namespace lighthouse

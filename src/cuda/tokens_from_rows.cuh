// Scatter (section vi) and gather's adjoint (section vii): every token is a sum over at most one row of each level.
#pragma once

#include "cuda/rows.cuh"

namespace lighthouse {

/// Bit t: token t of the 16 that start at `token` is one of the document's.
__device__ __forceinline__ unsigned tokens_inside(int32_t token, int32_t seq_len) {
  constexpr int kTokens = 1 << kLog2Group;
  const unsigned from = token >= 0 ? ~0U : ~0U << -token;
  const int32_t left = seq_len - token;
  return from & (left >= kTokens ? ~0U : left <= 0 ? 0U : (1U << left) - 1);
}

/// A factor for each of kTokens tokens, spread over the lanes of a group.
template <int kTokens, int kLanes>
class TokenScales {
  static constexpr int kPerLane = (kTokens + kLanes - 1) / kLanes;

 public:
  /// Those of tokens from seq_len on are not read.
  __device__ __forceinline__ void load(const float* scale, int64_t token, int64_t seq_len,
                                       const LaneGroup<kLanes>& group) {
#pragma unroll
    for (int i = 0; i < kPerLane; ++i) {
      const int t = group.lane + i * kLanes;
      scale_[i] = t < kTokens && token + t < seq_len ? scale[token + t] : 0;
    }
  }
  /// A whole warp asks.
  __device__ __forceinline__ float of(int t) const {
    return LaneGroup<kLanes>::broadcast(scale_[t / kLanes], t % kLanes);
  }

 private:
  float scale_[kPerLane];
};

/// Blocks of a multiprocessor that leave each the registers it needs.
template <int kLanes, bool kTurned>
inline constexpr int kTokenBlocks = kTurned        ? (kLanes == 8 ? 3 : kTurnBlocks)
                                    : kLanes == 16 ? 5
                                                   : 4;

/// The rows of one head, as a lane of kVec channels adds them up.
template <typename T, int kVec, RowMap kMap, typename Channels>
struct RowAdder {
  const T* rows;
  const ConstView& view;  ///< whose strides stay among the kernel's arguments
  bool own_channels;

  /// Zero where there is no row.
  __device__ __forceinline__ Vec<T, kVec> load(int32_t row) const {
    Vec<T, kVec> value{};
    if (row != kNoRow && own_channels) value = Channels::load(rows + int64_t{row} * view.seq_stride);
    return value;
  }
  /// The row of a window of 2^log2 tokens.
  static __device__ __forceinline__ void add(Sum<T> (&sum)[kVec], const Vec<T, kVec>& row, int log2) {
    constexpr bool kScaled = kMap == RowMap::kMean;
    add_scaled<T, kVec>(sum, row, kScaled ? Sum<T>(1) / static_cast<Sum<T>>(int64_t{1} << log2) : Sum<T>(1));
  }
};

template <typename Real, int kVec>
__device__ __forceinline__ void copy_sum(Real (&to)[kVec], const Real (&from)[kVec]) {
#pragma unroll
  for (int i = 0; i < kVec; ++i) to[i] = from[i];
}

/// Adds the rows of the windows inside 16 tokens to `all`, what their wider windows add up to, and calls store(t, sum)
/// for each token: down the tree of nodes (octet.cuh), of which each node's sum begins as its parent's. `four_rows` are
/// loaded before.
template <typename T, int kVec, typename Nodes, typename Adder, typename Store>
__device__ __forceinline__ void add_down_the_tree(const Nodes& nodes, unsigned in_warp, const Adder& adder,
                                                  const Vec<T, kVec> (&four_rows)[4], const Sum<T> (&all)[kVec],
                                                  const Store& store) {
  const auto has = [&](int log2, int index) { return (in_warp >> (Nodes::begin(log2) + index) & 1) != 0; };
  const auto add_node = [&](Sum<T>(&sum)[kVec], int log2, int index) {
    if (has(log2, index)) adder.add(sum, adder.load(nodes.row(Nodes::begin(log2) + index)), log2);
  };
#pragma unroll
  for (int eight = 0; eight < 2; ++eight) {
    Sum<T> of_eight[kVec];
    copy_sum(of_eight, all);
    add_node(of_eight, 3, eight);
#pragma unroll
    for (int four = 2 * eight; four < 2 * eight + 2; ++four) {
      Sum<T> of_four[kVec];
      copy_sum(of_four, of_eight);
      if (has(2, four)) adder.add(of_four, four_rows[four], 2);
      if ((in_warp & (0xFU << 4 * four | 0x3U << (Nodes::begin(1) + 2 * four))) == 0) {
#pragma unroll
        for (int t = 4 * four; t < 4 * four + 4; ++t) store(t, of_four);
        continue;
      }
#pragma unroll
      for (int two = 2 * four; two < 2 * four + 2; ++two) {
        const Vec<T, kVec> one_rows[2] = {adder.load(nodes.row(2 * two)), adder.load(nodes.row(2 * two + 1))};
        Sum<T> of_two[kVec];
        copy_sum(of_two, of_four);
        add_node(of_two, 1, two);
#pragma unroll
        for (int one = 0; one < 2; ++one) {
          Sum<T> of_one[kVec];
          copy_sum(of_one, of_two);
          adder.add(of_one, one_rows[one], 0);
          store(2 * two + one, of_one);
        }
      }
    }
  }
}

/// Lane l: the row of level l, if its windows are longer than the group of tokens from position `first` on.
template <int kShift, int kLanes>
__device__ __forceinline__ int32_t wide_row_of_lane(const int32_t* slots, const DevicePlan& plan,
                                                    const DeviceDocument& document, int32_t first,
                                                    const LaneGroup<kLanes>& group) {
  const int log2 = group.lane * plan.log2_pool;
  if (group.lane >= plan.num_levels || log2 <= kLog2Group) return kNoRow;
  const int32_t entry = (first >> log2) - kShift;
  if (entry < 0 || entry >= plan.size_of(document, group.lane)) return kNoRow;
  return slots[plan.begin_of(document, group.lane) + entry];
}

/// A group of lanes owns 16 tokens of one head, a lane kVec channels of it. The row of a window is read once for all
/// its tokens in the group; tokens are written once. Sums start at the coarsest level. kTurned: q and k are turned
/// back, and every token is scaled, before it is rounded. grid: row_map_grid over groups of tokens; kTurned: the
/// tensors, always three, are part of x.
template <typename T, int kVec, int kLanes, RowMap kMap, bool kTurned>
__global__ void __launch_bounds__(kRowMapThreads, kTokenBlocks<kLanes, kTurned>)
    tokens_from_rows_kernel(const __grid_constant__ TokensFromRows args) {
  using Nodes = NodeRows<kLog2Group, kLanes>;
  using Channels = HeadChannels<T, kVec, kLanes, kTurned>;
  constexpr int kShift = kShiftOf<kMap>;
  constexpr int kTokens = 1 << kLog2Group;
  __shared__ AngleTileIf<kTurned, kTokens, Channels::kHalf> angles;  // all groups of a block are at the same tokens
  // Where heads are turned the blocks of q, k and v take turns: the angles that they read, and the rows of packed heads
  // that they write, are in the L2 cache together.
  const uint32_t own_tensor = kTurned ? blockIdx.x % 3 : blockIdx.y;
  const auto& tensor = args.tensors[own_tensor];
  const DevicePlan& plan = args.plan;
  const LaneGroup<kLanes> group;
  const WorkItem item =
      work_item<kLanes, kVec>(tensor.num_heads, args.channel_blocks, kTurned ? blockIdx.x / 3 : blockIdx.x);
  if (item.position >= plan.num_groups) return;
  const DeviceDocument document = plan.find(&DeviceDocument::group_begin, item.position);
  const int32_t first = (item.position - document.group_begin) << kLog2Group;
  const auto kv_head = static_cast<int32_t>(tensor.group.quotient(item.head));
  const bool own_channels = kTurned || item.channel < args.head_dim;
  const int32_t channel = Channels::first(item.channel);
  const unsigned inside = own_channels ? tokens_inside(first - kShift, document.seq_len) : 0;

  const bool turns = kTurned && own_tensor < kTurnedTensors;
  const int64_t first_token = int64_t{document.token_begin} + first;
  if constexpr (kTurned) {
    if (turns) {
      angles.template begin_load<kRowMapThreads>(args.turn, first_token, plan.seq_len, static_cast<int>(threadIdx.x));
    }
  }

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    const int32_t* slots = args.slots + (batch * args.num_kv_heads + kv_head) * plan.num_slots + document.slot_begin;
    const T* rows = static_cast<const T*>(tensor.rows.data) + batch * tensor.rows.batch_stride +
                    item.head * tensor.rows.head_stride + channel;
    const RowAdder<T, kVec, kMap, Channels> adder{rows, tensor.rows, own_channels};
    T* out = static_cast<T*>(tensor.tokens.data) + batch * tensor.tokens.batch_stride +
             item.head * tensor.tokens.head_stride + channel +
             (int64_t{document.token_begin} + first - kShift) * tensor.tokens.seq_stride;
    Nodes nodes;
    nodes.template load<kShift>(slots, plan, document, first, ~0U, group);
    const int32_t wide_row = wide_row_of_lane<kShift>(slots, plan, document, first, group);
    unsigned levels = group.any(wide_row != kNoRow);
    const unsigned in_warp = nodes.in_warp();
    TokenScales<kTokens, kLanes> scales;
    if constexpr (kTurned) scales.load(args.turn.row_scale + batch * plan.seq_len, first_token, plan.seq_len, group);
    const auto store = [&](int t, const Sum<T>(&sum)[kVec]) {
      if constexpr (kTurned) {
        const float scale = scales.of(t);  // which a whole warp asks for
        if ((inside >> t & 1) == 0) return;
        Sum<T> back[kVec];
        copy_sum(back, sum);
        if (turns) angles.template turn<true>(back, t, channel);
        Channels::store(out + t * tensor.tokens.seq_stride, round_vec<T, kVec>(back, scale));
      } else {
        if (inside >> t & 1) store_vec(out + t * tensor.tokens.seq_stride, round_vec<T, kVec>(sum, 1));
      }
    };

    Vec<T, kVec> four_rows[4] = {};  // on their way while the wider windows are added
    if ((in_warp >> Nodes::begin(2) & 0xF) != 0) {
#pragma unroll
      for (int four = 0; four < 4; ++four) four_rows[four] = adder.load(nodes.row(Nodes::begin(2) + four));
    }
    if constexpr (kTurned) {
      angles.wait();
      __syncthreads();
    }
    Sum<T> all[kVec] = {};
    while (levels != 0) {
      const int level = 31 - __clz(static_cast<int>(levels));
      levels ^= 1U << level;
      adder.add(all, adder.load(group.broadcast(wide_row, level)), level * plan.log2_pool);
    }
    if ((in_warp >> Nodes::begin(4) & 1) != 0) adder.add(all, adder.load(nodes.row(Nodes::begin(4))), 4);
    add_down_the_tree<T, kVec>(nodes, in_warp, adder, four_rows, all, store);
  }
}

template <RowMap kMap>
void launch_tokens_from_rows(TokensFromRows args, int num_tensors, DType dtype, CudaStream stream) {
  dispatch_dtype(dtype, [&](auto element) {
    using T = decltype(element);
    dispatch_lanes<T>(args, num_tensors, [&](auto vec, auto lanes) {
      const dim3 grid = row_map_grid(args, num_tensors, args.plan.num_groups, lanes.value);
      dispatch_turn<T, vec.value, kMap>(args, [&](auto turned) {
        tokens_from_rows_kernel<T, vec.value, lanes.value, kMap, turned.value>
            <<<turned.value ? dim3(3 * grid.x, 1, grid.z) : grid, kRowMapThreads, 0, stream>>>(args);
      });
      LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
    });
  });
}

}  // namespace lighthouse

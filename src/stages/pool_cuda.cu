// Sections (i) and (ii) in one pass over q, k and v: norms, their maxima over windows, and the coarsest means.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "cuda/launch.h"
#include "cuda/window_sum.cuh"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {
namespace {

constexpr int kThreads = 128;
static_assert(kThreads == kTurnThreads);
constexpr float kNoScore = -std::numeric_limits<float>::infinity();

struct PoolTensor {
  ConstView x;    // [B, N, heads, D]
  void* coarse;   // [B, num_coarse, heads, D], or the fp32/fp64 sums of every unit where windows are longer than one
  float* maxima;  // [B, heads, num_maxima], or null
  int32_t num_heads;
};

struct PoolArgs {
  PoolTensor tensors[3];
  DevicePlan plan;
  int32_t batch, head_dim;
  HeadTurn turn;
};

/// Maxima of the windows of one unit, fed eight norms at a time.
template <int kLanes>
class WindowMaxima {
 public:
  /// `norm` is that of token `first` + lane / (kLanes / 8) of the document, kNoScore past its end; octet as in
  /// WindowSum. `maxima` is of one head. Only an `active` group writes.
  __device__ __forceinline__ void add_octet(float norm, int32_t first, int octet, int num_octets, float* maxima,
                                            bool active, const DevicePlan& plan, const DeviceDocument& document,
                                            const LaneGroup<kLanes>& group) {
    constexpr int kStride = kLanes / kOctet;
    const auto write = [&](int log2, float value, int32_t token, bool writer) {
      const int level = plan.level_of[log2];
      const int32_t entry = token >> log2;
      if (level < 0 || !active || !writer || entry >= plan.size_of(document, level)) return;
      maxima[plan.maxima_begin(document, level) + entry] = value;
    };
    float value = fmaxf(norm, kNoScore);  // NaN counts as -infinity
#pragma unroll
    for (int log2 = 1; log2 <= kLog2Octet; ++log2) {
      value = fmaxf(value, group.exchange(value, kStride << (log2 - 1)));
      write(log2, value, first + group.lane / kStride, group.lane % (kStride << log2) == 0);
    }
    bool complete = true;
#pragma unroll
    for (int i = 0; i < kLog2MaxUnit - kLog2Octet; ++i) {
      complete = complete && 1 << i < num_octets;
      const bool right = octet >> i & 1;
      const float both = fmaxf(value, left_[i]);
      if (complete && !right) left_[i] = value;
      complete = complete && right;
      value = both;
      if (complete) write(kLog2Octet + 1 + i, both, first, group.lane == 0);
    }
  }

 private:
  float left_[kLog2MaxUnit - kLog2Octet];  // of 8, 16, 32 tokens
};

/// A group of kLanes threads owns one head and every (groups of that head)-th unit; a lane owns kVec channels. Each
/// element is read once, and with kTurned q and k are turned then. grid = (groups, tensors, batch); the number of
/// groups is a multiple of the heads.
template <typename T, int kVec, int kLanes, bool kTurned>
__global__ void __launch_bounds__(kThreads, kTurned ? kTurnBlocks : 5)
    pool_kernel(const __grid_constant__ PoolArgs args) {
  using Channels = HeadChannels<T, kVec, kLanes, kTurned>;
  __shared__ typename WindowSum<T, kVec, kThreads>::Shared waiting;
  __shared__ AngleTileIf<kTurned, kOctet, Channels::kHalf> angles;  // all groups of a block are at the same tokens
  const PoolTensor& tensor = args.tensors[blockIdx.y];
  const DevicePlan& plan = args.plan;
  const LaneGroup<kLanes> group;
  const uint32_t number = blockIdx.x * (kThreads / kLanes) + threadIdx.x / kLanes;
  const auto head = static_cast<int32_t>(number % tensor.num_heads);
  const auto stride = static_cast<int32_t>(gridDim.x * (kThreads / kLanes) / tensor.num_heads);
  const auto first_unit = static_cast<int32_t>(number / tensor.num_heads);
  const int32_t lowest_unit = kTurned ? first_unit : __shfl_sync(~0U, first_unit, 0);
  const bool turns = kTurned && tensor.maxima != nullptr;
  const int32_t channel = Channels::first(group.lane * kVec);
  const bool own_channels = kTurned || group.lane * kVec < args.head_dim;
  const int log2_coarse = (plan.num_levels - 1) * plan.log2_pool;
  const int log2_unit_len = log2_unit(plan.num_levels, plan.log2_pool);
  const int num_octets = 1 << (log2_unit_len - kLog2Octet);

  for (int64_t batch = blockIdx.z; batch < args.batch; batch += gridDim.z) {
    WindowSum<T, kVec, kThreads> sum(waiting);
    WindowMaxima<kLanes> maxima;
    const T* x =
        static_cast<const T*>(tensor.x.data) + batch * tensor.x.batch_stride + head * tensor.x.head_stride + channel;
    // The groups of a warp go on together until the first of them, whose unit is the lowest, is done.
    for (int32_t step = 0; lowest_unit + step < plan.num_units; step += stride) {
      const int32_t unit = min(first_unit + step, plan.num_units - 1);
      const DeviceDocument document = plan.find(&DeviceDocument::unit_begin, unit);
      const bool selects = document.num_levels == plan.num_levels;  // else it is attended to in full
      const bool active = selects && (kTurned || first_unit + step < plan.num_units);
      const int32_t num_coarse = plan.size_of(document, plan.num_levels - 1);
      const int32_t local_unit = unit - document.unit_begin;
      float* head_maxima = tensor.maxima + (batch * tensor.num_heads + head) * plan.num_maxima;
      const int64_t coarse_begin = batch * plan.num_coarse + document.coarse_begin;
      const auto element = [&](int64_t position) {
        return (position * tensor.num_heads + head) * args.head_dim + channel;
      };
      for (int octet = 0; octet < num_octets; ++octet) {
        const int32_t token = (local_unit << log2_unit_len) + octet * kOctet;
        Octet<T, kVec> values;
        const int64_t first_token = document.token_begin + int64_t{token};
        if constexpr (kTurned) {
          if (turns) {
            __syncthreads();  // the octet before is done
            angles.template begin_load<kThreads>(args.turn, first_token, plan.seq_len, static_cast<int>(threadIdx.x));
          }
        }
        values.load(Channels(), x + first_token * tensor.x.seq_stride, tensor.x.seq_stride, token, document.seq_len,
                    own_channels && active, 0xFF);
        if constexpr (kTurned) {
          if (turns) {
            angles.wait();
            __syncthreads();
            values.turn(angles, channel);
          }
        }
        Sum<T> square[kOctet];
        const auto add_square = [&](int t, const Sum<T>(&channels)[kVec]) {
          square[t] = 0;
#pragma unroll
          for (int i = 0; i < kVec; ++i) square[t] += channels[i] * channels[i];
        };
        // Coarsest means, or the sums of units that are parts of a coarsest window.
        sum.add_octet(values, octet, num_octets, add_square, [&](int log2, int index, const Sum<T>(&window)[kVec]) {
          if (log2 == log2_coarse) {
            const int32_t entry = (token >> log2) + index;
            if (entry >= num_coarse || !own_channels || !active) return;
            const Sum<T> scale = Sum<T>(1) / static_cast<Sum<T>>(1 << log2);
            Channels::store(static_cast<T*>(tensor.coarse) + element(coarse_begin + entry),
                            round_vec<T, kVec>(window, scale));
          } else if (!kTurned && log2 == kLog2MaxUnit && log2_coarse > kLog2MaxUnit) {
            const int log2_parts = log2_coarse - kLog2MaxUnit;
            if (local_unit >= num_coarse << log2_parts || !own_channels || !active) return;
            auto* out = static_cast<Sum<T>*>(tensor.coarse) + element((coarse_begin << log2_parts) + local_unit);
#pragma unroll
            for (int i = 0; i < kVec; ++i) out[i] = window[i];
          }
        });
        if (tensor.maxima == nullptr) continue;
        const Sum<T> total = transpose_sum(square, group);
        const bool real = token + group.lane / (kLanes / kOctet) < document.seq_len;
        maxima.add_octet(real ? static_cast<float>(sqrt(total)) : kNoScore, token, octet, num_octets, head_maxima,
                         active, plan, document, group);
      }
    }
  }
}

struct FinishArgs {
  struct {
    const void* sums;  // [B, num_coarse << log2_parts, heads, D] fp32 or fp64
    void* coarse;      // [B, num_coarse, heads, D]
    int64_t num_heads;
  } tensors[3];
  int64_t positions;  // B * num_coarse
  int32_t head_dim, log2_parts;
  double scale;  // 1 / F
};

/// A thread owns one channel of one coarsest entry whose window was pooled in several units. grid = (blocks, tensors).
template <typename T>
__global__ __launch_bounds__(kThreads) void finish_coarse_kernel(const __grid_constant__ FinishArgs args) {
  const auto& tensor = args.tensors[blockIdx.y];
  const int64_t row_len = tensor.num_heads * args.head_dim;
  const int64_t item = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (item >= args.positions * row_len) return;
  const int64_t position = item / row_len;
  const Sum<T>* sums =
      static_cast<const Sum<T>*>(tensor.sums) + (position << args.log2_parts) * row_len + item % row_len;
  Sum<T> sum = 0;
  for (int64_t unit = 0; unit < int64_t{1} << args.log2_parts; ++unit) sum += sums[unit * row_len];
  static_cast<T*>(tensor.coarse)[item] = narrow<T>(sum * static_cast<Sum<T>>(args.scale));
}

struct PoolMaximaArgs {
  const float* scores[2];  // level 0 [B, heads, N]; read for level 1 where not null
  float* maxima[2];        // [B, heads, num_maxima]
  int32_t num_heads[2];
  DevicePlan plan;
  int32_t batch, level;
};

/// A thread owns one entry of one level and takes the maximum of its p children. grid = (entry blocks, 2 scores, B *
/// heads).
__global__ __launch_bounds__(kThreads) void pool_maxima_kernel(const __grid_constant__ PoolMaximaArgs args) {
  const DevicePlan& plan = args.plan;
  const int64_t position = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (position >= plan.num_maxima) return;
  const int which = blockIdx.y;
  const DeviceDocument document = plan.find(&DeviceDocument::maxima_begin, position);
  const Pyramid pyramid = plan.pyramid(document);
  const int64_t entry = position - plan.maxima_begin(document, args.level);
  if (entry < 0 || entry >= pyramid.level_size(args.level)) return;
  const int64_t begin = entry << plan.log2_pool;
  const int64_t end = min(begin + (1 << plan.log2_pool), pyramid.level_size(args.level - 1));
  for (int64_t head = blockIdx.z; head < int64_t{args.batch} * args.num_heads[which]; head += gridDim.z) {
    float* maxima = args.maxima[which] + head * plan.num_maxima;
    const float* children = args.level == 1 ? args.scores[which] + head * plan.seq_len + document.token_begin
                                            : maxima + plan.maxima_begin(document, args.level - 1);
    float value = kNoScore;
    for (int64_t child = begin; child < end; ++child) value = fmaxf(value, children[child]);
    maxima[position] = value;
  }
}

void launch_pool_maxima(PoolMaximaArgs args, int first_level, CudaStream stream) {
  const int64_t heads = int64_t{args.batch} * std::max(args.num_heads[0], args.num_heads[1]);
  for (args.level = first_level; args.level < args.plan.num_levels; ++args.level) {
    const dim3 grid(static_cast<unsigned>(ceil_div(args.plan.num_maxima, kThreads)), 2, batch_blocks(heads));
    pool_maxima_kernel<<<grid, kThreads, 0, stream>>>(args);
    LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  }
}

template <typename T, int kVec, int kLanes>
void launch_pool(const PoolArgs& args, CudaStream stream) {
  const bool turned = args.turn.cos != nullptr;
  const int64_t running = num_multiprocessors() * (turned ? kTurnBlocks : 5);  // blocks at once
  int64_t num_heads = 0;
  for (const PoolTensor& tensor : args.tensors) num_heads = std::max<int64_t>(num_heads, tensor.num_heads);
  const int64_t groups = args.plan.num_units * num_heads;
  const int64_t blocks = std::min(running, ceil_div(groups, kThreads / kLanes));
  const dim3 grid(static_cast<unsigned>(ceil_div(blocks, num_heads) * num_heads), 3, batch_blocks(args.batch));
  if (!turned) {
    pool_kernel<T, kVec, kLanes, false><<<grid, kThreads, 0, stream>>>(args);
  } else if constexpr (kHasTurn<T>) {
    pool_kernel<T, kVec, kLanes, true><<<grid, kThreads, 0, stream>>>(args);
  }
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

/// The narrowest thread group that holds a head, 16 bytes a lane.
template <typename T>
void dispatch_pool(const PoolArgs& args, CudaStream stream) {
  constexpr int kVec = 16 / sizeof(T);
  if (args.head_dim <= 8 * kVec) return launch_pool<T, kVec, 8>(args, stream);
  if (args.head_dim <= 16 * kVec) return launch_pool<T, kVec, 16>(args, stream);
  launch_pool<T, kVec, 32>(args, stream);
}

int64_t element_bytes(DType dtype) { return dtype == DType::kFloat64 ? 8 : dtype == DType::kFloat32 ? 4 : 2; }

int coarse_shift(const DevicePlan& plan) { return (plan.num_levels - 1) * plan.log2_pool; }

}  // namespace

bool can_pool_and_score(const ConstView& q, const ConstView& k, const ConstView& v, DType dtype, int64_t head_dim) {
  const int64_t bytes = element_bytes(dtype);
  const auto aligned = [&](const ConstView& x) { return rows_aligned(x, bytes, 16); };
  return head_dim * bytes % 16 == 0 && head_dim * bytes <= 32 * 16 && aligned(q) && aligned(k) && aligned(v);
}

bool can_turn_tokens(const GatherParams& params) {
  const SelectionConfig& config = params.plan->config;
  return has_turn(params.dtype, params.head_dim, params.num_heads, params.num_kv_heads) && !params.plan->is_full() &&
         (config.num_levels - 1) * config.log2_pool() <= kLog2MaxUnit &&
         can_pool_and_score(params.q, params.k, params.v, params.dtype, params.head_dim);
}

int64_t pool_workspace_elements(const DevicePlan& plan, int64_t batch, int64_t num_heads, int64_t num_kv_heads,
                                int64_t head_dim, DType dtype) {
  if (coarse_shift(plan) <= kLog2MaxUnit) return 0;
  const int64_t units = int64_t{plan.num_coarse} << (coarse_shift(plan) - kLog2MaxUnit);
  return batch * units * (num_heads + 2 * num_kv_heads) * head_dim * (dtype == DType::kFloat64 ? 2 : 1);
}

void pool_and_score(const PoolParams& params, const DevicePlan& plan, CudaStream stream) {
  PoolArgs args{};
  args.plan = plan;
  args.batch = static_cast<int32_t>(params.batch);
  args.head_dim = static_cast<int32_t>(params.head_dim);
  args.turn = params.turn;
  const bool whole_windows = coarse_shift(plan) <= kLog2MaxUnit;
  LIGHTHOUSE_CHECK(
      params.turn.cos == nullptr ||
          (has_turn(params.dtype, params.head_dim, params.num_heads, params.num_kv_heads) && whole_windows),
      "pool_and_score: no kernel turns these heads in windows of ", int64_t{1} << coarse_shift(plan));
  const auto num_heads = static_cast<int32_t>(params.num_heads);
  const auto num_kv_heads = static_cast<int32_t>(params.num_kv_heads);
  args.tensors[0] = {params.q, params.q_coarse, params.max_qk, num_heads};
  args.tensors[1] = {params.k, params.k_coarse, params.max_kq, num_kv_heads};
  args.tensors[2] = {params.v, params.v_coarse, nullptr, num_kv_heads};
  FinishArgs finish{};
  finish.log2_parts = coarse_shift(plan) - kLog2MaxUnit;
  if (!whole_windows) {
    auto* sums = reinterpret_cast<char*>(params.workspace);
    for (int i = 0; i < 3; ++i) {
      finish.tensors[i] = {sums, args.tensors[i].coarse, args.tensors[i].num_heads};
      args.tensors[i].coarse = sums;
      sums += (params.batch * plan.num_coarse << finish.log2_parts) * args.tensors[i].num_heads * params.head_dim *
              (params.dtype == DType::kFloat64 ? 8 : 4);
    }
  }
  dispatch_dtype(params.dtype, [&](auto element) { dispatch_pool<decltype(element)>(args, stream); });
  if (whole_windows) return;

  finish.positions = params.batch * plan.num_coarse;
  finish.head_dim = args.head_dim;
  finish.scale = 1.0 / static_cast<double>(int64_t{1} << coarse_shift(plan));
  const int64_t items = finish.positions * std::max(params.num_heads, params.num_kv_heads) * params.head_dim;
  const dim3 grid(static_cast<unsigned>(ceil_div(items, kThreads)), 3);
  dispatch_dtype(params.dtype,
                 [&](auto element) { finish_coarse_kernel<decltype(element)><<<grid, kThreads, 0, stream>>>(finish); });
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  if (params.max_qk == nullptr) return;
  const PoolMaximaArgs maxima{
      {nullptr, nullptr}, {params.max_qk, params.max_kq}, {num_heads, num_kv_heads}, plan, args.batch, 0};
  launch_pool_maxima(maxima, kLog2MaxUnit / plan.log2_pool + 1, stream);
}

void pool_scores(const PoolScoresParams& params, const DevicePlan& plan, CudaStream stream) {
  const auto num_kv_heads = static_cast<int32_t>(params.num_kv_heads);
  const PoolMaximaArgs args{{params.s_qk, params.s_kq},         {params.max_qk, params.max_kq},
                            {num_kv_heads, num_kv_heads},       plan,
                            static_cast<int32_t>(params.batch), 0};
  launch_pool_maxima(args, 1, stream);
}

}  // namespace lighthouse

// Sections (iii) and (iv): one block selects one tile by radix selection and prefix sums, and numbers its rows.
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <cub/block/block_reduce.cuh>
#include <cub/block/block_scan.cuh>

#include "cuda/launch.h"
#include "lighthouse/check.h"
#include "lighthouse/cuda_stages.h"
#include "lighthouse/forest.h"

namespace lighthouse {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kMaxSharedBytes = 96 << 10;  // scratch of a tile beyond this lies in the workspace

/// Candidates of one level of the tile, in order. Lists lie in the block's scratch.
struct LevelList {
  int32_t num_candidates;  // c
  int32_t num_expanded;    // e = min(m_t, c)
  int32_t* before;         // [c + 1] expanded candidates before each
  int32_t* candidate;      // [e] position of each expanded one among the candidates
  int32_t* entry;          // [e] its index in the level, counted in the document
  int32_t*
      rows_above;  // [e] rows of this and coarser levels before its children: candidate positions up to the coarsest
};

/// Integers of scratch for one tile: the lists of every level from 1 up, and two keys for each candidate of the widest.
LIGHTHOUSE_HOST_DEVICE int64_t scratch_elements(const TileShape& tile, int num_levels, int log2_pool) {
  int64_t total = 0;
  int64_t candidates = tile.num_coarse;
  int64_t widest = 0;
  for (int level = num_levels - 1; level >= 1; --level) {
    const int64_t expanded = tile.budget < candidates ? tile.budget : candidates;
    total += candidates + 1 + 3 * expanded;
    widest = candidates > widest ? candidates : widest;
    candidates = expanded << log2_pool;
  }
  return total + 2 * widest;
}

struct SelectArgs {
  SelectMaximaParams params;
  DevicePlan plan;
  int64_t workspace_stride;  // integers per block; 0: scratch is shared memory
};

/// Order of scores as unsigned integers: -infinity (and NaN, and no score) lowest, -0 equal to +0.
__device__ __forceinline__ uint32_t score_key(float score) {
  if (!(score > -INFINITY)) score = -INFINITY;
  const uint32_t bits = __float_as_uint(score + 0.0f);
  return bits & 0x80000000u ? ~bits : bits | 0x80000000u;
}
constexpr uint32_t kExcluded = 0;          // below the key of -infinity
constexpr uint32_t kAlways = 0xFFFFFFFFu;  // above the key of +infinity

/// The keys above a threshold, and the first `num_ties` of those equal to it.
struct Threshold {
  uint32_t value;
  uint32_t mask;     // the leading bits that were compared
  int32_t num_ties;  // of the keys that equal it in these bits; all of them when negative
};

struct Shared {
  using Scan = cub::BlockScan<int32_t, kThreads>;
  using Reduce = cub::BlockReduce<int64_t, kThreads>;
  union {
    typename Scan::TempStorage scan;
    typename Reduce::TempStorage reduce;
    int32_t histogram[256];
  };
  Threshold threshold;
  int64_t row_begin;
  int64_t expanded_begin;
  LevelList levels[kMaxLevels];
};

/// Finds the threshold that `need` >= 1 of `count` keys reach: radix selection by bytes from the top, ended early once
/// a whole bin is taken.
__device__ Threshold select_threshold(Shared& shared, const uint32_t* keys, int32_t count, int32_t need) {
  if (threadIdx.x == 0) shared.threshold = {0, 0, need};
  for (int shift = 24; shift >= 0; shift -= 8) {
    for (int bin = threadIdx.x; bin < 256; bin += kThreads) shared.histogram[bin] = 0;
    __syncthreads();
    const Threshold current = shared.threshold;
    for (int32_t c = threadIdx.x; c < count; c += kThreads) {
      const uint32_t key = keys[c];
      if ((key & current.mask) == current.value) atomicAdd(&shared.histogram[key >> shift & 255], 1);
    }
    __syncthreads();
    if (threadIdx.x <
        32) {  // lane i sums bins 8i .. 8i + 7; a suffix sum over lanes finds the bin that completes `need`
      const int lane = threadIdx.x;
      int32_t own = 0;
      for (int bin = 0; bin < 8; ++bin) own += shared.histogram[lane * 8 + bin];
      int32_t above = own;
      for (int step = 1; step < 32; step *= 2) {
        const int32_t other = __shfl_down_sync(~0u, above, step);
        if (lane + step < 32) above += other;
      }
      above -= own;
      if (above < current.num_ties && above + own >= current.num_ties) {
        int bin = lane * 8 + 7;
        while (above + shared.histogram[bin] < current.num_ties) above += shared.histogram[bin--];
        const bool whole = above + shared.histogram[bin] == current.num_ties;
        shared.threshold = {current.value | static_cast<uint32_t>(bin) << shift, current.mask | 255u << shift,
                            whole ? -1 : current.num_ties - above};
      }
    }
    __syncthreads();
    if (shared.threshold.num_ties < 0) break;
  }
  const Threshold threshold = shared.threshold;
  __syncthreads();
  return threshold;
}

/// Calls take(c, taken) in order for every candidate, with c's in [0, count) and `taken` by the threshold; ties in
/// order.
template <typename Take>
__device__ void for_each_taken(Shared& shared, const uint32_t* keys, int32_t count, const Threshold& threshold,
                               Take&& take) {
  int32_t ties_before = 0;
  for (int32_t base = 0; base < count; base += kThreads) {
    const int32_t c = base + static_cast<int32_t>(threadIdx.x);
    const uint32_t key = c < count ? keys[c] & threshold.mask : 0;
    const bool tie = c < count && key == threshold.value;
    bool taken = c < count && key > threshold.value;
    if (threshold.num_ties < 0) {
      taken = taken || tie;
    } else {
      int32_t rank;
      int32_t total;
      Shared::Scan(shared.scan).ExclusiveSum(static_cast<int32_t>(tie), rank, total);
      __syncthreads();
      taken = taken || (tie && ties_before + rank < threshold.num_ties);
      ties_before += total;
    }
    if (c < count) take(c, taken);
  }
  __syncthreads();
}

/// Index in its level of candidate c: a coarsest entry of the tile, or a child of an expanded entry of the level above.
__device__ __forceinline__ int32_t candidate_entry(const LevelList* levels, int level, const Pyramid& pyramid,
                                                   const TileShape& tile, int32_t c) {
  if (level == pyramid.num_levels - 1) return static_cast<int32_t>(tile.coarse_begin) + c;
  const int log2_pool = pyramid.log2_pool;
  return (levels[level + 1].entry[c >> log2_pool] << log2_pool) + (c & ((1 << log2_pool) - 1));
}
__device__ __forceinline__ int32_t rows_above(const LevelList* levels, int level, const Pyramid& pyramid, int32_t c) {
  return c + (level == pyramid.num_levels - 1 ? 0 : levels[level + 1].rows_above[c >> pyramid.log2_pool]);
}

/// Marks the expanded candidates of one level in `flags`: ceil(m/2) by s_qk, then floor(m/2) of the rest by s_kq.
__device__ void expand_level(Shared& shared, const SelectArgs& args, const DeviceDocument& document,
                             const TileShape& tile, int64_t position, int level, uint32_t* keys_qk, uint32_t* keys_kq,
                             int32_t* flags) {
  const DevicePlan& plan = args.plan;
  const LevelList& list = shared.levels[level];
  const Pyramid pyramid = plan.pyramid(document);
  const int64_t level_size = pyramid.level_size(level);
  const int64_t begin = plan.maxima_begin(document, level);
  const int64_t group = args.params.num_score_heads / args.params.num_kv_heads;
  const float* max_kq = args.params.max_kq + position * plan.num_maxima + begin;
  const float* max_qk = args.params.max_qk + position * group * plan.num_maxima + begin;
  for (int32_t c = threadIdx.x; c < list.num_candidates; c += kThreads) {
    const int32_t entry = candidate_entry(shared.levels, level, pyramid, tile, c);
    float qk = -INFINITY;
    float kq = -INFINITY;
    if (entry < level_size) {
      for (int64_t head = 0; head < group; ++head) qk = fmaxf(qk, max_qk[head * plan.num_maxima + entry]);
      kq = max_kq[entry];
    }
    keys_qk[c] = plan.cover_prefix && entry == 0 && document.first_tile == 0 ? kAlways : score_key(qk);
    keys_kq[c] = score_key(kq);
  }
  __syncthreads();
  const int32_t by_qk = (list.num_expanded + 1) / 2;
  const int32_t by_kq = list.num_expanded / 2;
  const Threshold first = select_threshold(shared, keys_qk, list.num_candidates, by_qk);
  for_each_taken(shared, keys_qk, list.num_candidates, first, [&](int32_t c, bool taken) {
    flags[c] = taken;
    if (taken) keys_kq[c] = kExcluded;
  });
  if (by_kq == 0) return;
  const Threshold second = select_threshold(shared, keys_kq, list.num_candidates, by_kq);
  for_each_taken(shared, keys_kq, list.num_candidates, second, [&](int32_t c, bool taken) {
    if (taken) flags[c] = 1;
  });
}

/// Turns the flags of a level into prefix counts and the lists of expanded candidates.
__device__ void list_expanded(Shared& shared, const Pyramid& pyramid, const TileShape& tile, int level, bool all) {
  LevelList& list = shared.levels[level];
  int32_t expanded_before = 0;
  for (int32_t base = 0; base < list.num_candidates; base += kThreads) {
    const int32_t c = base + static_cast<int32_t>(threadIdx.x);
    const bool real = c < list.num_candidates;
    const int32_t flag = real ? (all ? 1 : list.before[c]) : 0;
    int32_t rank;
    int32_t total;
    Shared::Scan(shared.scan).ExclusiveSum(flag, rank, total);
    __syncthreads();
    rank += expanded_before;
    if (real) list.before[c] = rank;
    if (flag) {
      list.candidate[rank] = c;
      list.entry[rank] = candidate_entry(shared.levels, level, pyramid, tile, c);
      list.rows_above[rank] = rows_above(shared.levels, level, pyramid, c);
    }
    expanded_before += total;
  }
  if (threadIdx.x == 0) list.before[list.num_candidates] = expanded_before;
  __syncthreads();
}

/// Writes row and slot of every emitted entry. The row of an entry is the number of entries before it in gathered
/// order: of its own and coarser levels those that precede it among the candidates; of finer levels p for each expanded
/// entry before it, a summary's own children included.
__device__ void emit(Shared& shared, const SelectArgs& args, const DeviceDocument& document, const TileShape& tile,
                     int32_t* selection, int32_t* slots) {
  const DevicePlan& plan = args.plan;
  const Pyramid pyramid = plan.pyramid(document);
  const int coarsest = pyramid.num_levels - 1;
  for (int level = coarsest; level >= 0; --level) {
    const int32_t count = level == coarsest ? static_cast<int32_t>(tile.num_coarse)
                                            : shared.levels[level + 1].num_expanded << pyramid.log2_pool;
    const int64_t entry_begin = document.entry_begin + pyramid.entry_offset(level);
    const int64_t slot_begin = document.slot_begin + pyramid.slot_offset(level);
    const int64_t level_size = pyramid.level_size(level);
    for (int32_t c = threadIdx.x; c < count; c += kThreads) {
      int32_t row = rows_above(shared.levels, level, pyramid, c);
      for (int32_t finer = level, position = c; finer >= 1; --finer) {
        const int32_t* before = shared.levels[finer].before;
        const bool summary = finer == level && before[c + 1] > before[c];
        position = before[position + summary] << pyramid.log2_pool;
        row += position;
      }
      row += static_cast<int32_t>(shared.row_begin);
      const int32_t entry = candidate_entry(shared.levels, level, pyramid, tile, c);
      selection[row] = static_cast<int32_t>(entry_begin + entry);
      if (entry < level_size) slots[slot_begin + entry] = row;
    }
  }
}

/// Writes kNoRow to [begin, end), 16 bytes a thread where that is aligned.
__device__ void fill_no_row(int32_t* begin, int32_t* end) {
  constexpr int kWide = 4;
  auto* wide_begin = reinterpret_cast<int4*>((reinterpret_cast<uintptr_t>(begin) + 15) / 16 * 16);
  auto* wide_end = reinterpret_cast<int4*>(reinterpret_cast<uintptr_t>(end) / 16 * 16);
  if (wide_begin >= wide_end) {
    for (int32_t* slot = begin + threadIdx.x; slot < end; slot += kThreads) *slot = kNoRow;
    return;
  }
  const int4 none = make_int4(kNoRow, kNoRow, kNoRow, kNoRow);
  for (int4* slots = wide_begin + threadIdx.x; slots < wide_end; slots += kThreads) *slots = none;
  if (threadIdx.x < kWide) {  // what is left on either side is less than four
    int32_t* head = begin + threadIdx.x;
    int32_t* tail = reinterpret_cast<int32_t*>(wide_end) + threadIdx.x;
    if (head < reinterpret_cast<int32_t*>(wide_begin)) *head = kNoRow;
    if (tail < end) *tail = kNoRow;
  }
}

/// Fills the tile's part of the slots table with kNoRow.
__device__ void clear_slots(const DevicePlan& plan, const DeviceDocument& document, const TileShape& tile,
                            int32_t* slots) {
  const Pyramid pyramid = plan.pyramid(document);
  for (int level = 0; level < pyramid.num_levels; ++level) {
    const int shift = pyramid.shift(pyramid.num_levels - 1) - pyramid.shift(level);
    const int64_t begin = tile.coarse_begin << shift;
    const int64_t end = min((tile.coarse_begin + tile.num_coarse) << shift, pyramid.level_size(level));
    int32_t* level_slots = slots + document.slot_begin + pyramid.slot_offset(level);
    if (begin < end) fill_no_row(level_slots + begin, level_slots + end);
  }
}

/// Lists the windows of F tokens that gather reads: those of expanded coarsest entries, or all of a document that is
/// attended to in full, which its first tile lists.
__device__ void list_windows(const Shared& shared, const SelectArgs& args, const DeviceDocument& document,
                             const TileShape& tile, int64_t position) {
  const DevicePlan& plan = args.plan;
  if (args.params.expanded == nullptr || plan.num_levels == 1) return;
  int32_t* windows = args.params.expanded + position * plan.num_expanded;
  if (document.num_levels == plan.num_levels) {
    const LevelList& coarsest = shared.levels[plan.num_levels - 1];
    for (int32_t i = threadIdx.x; i < coarsest.num_expanded; i += kThreads) {
      windows[shared.expanded_begin + i] = document.coarse_begin + coarsest.entry[i];
    }
  } else if (tile.coarse_begin == 0) {
    const int log2_coarse = (plan.num_levels - 1) * plan.log2_pool;
    const int32_t num_windows = (document.seq_len + (1 << log2_coarse) - 1) >> log2_coarse;
    for (int32_t i = threadIdx.x; i < num_windows; i += kThreads) {
      windows[document.expanded_begin + i] = document.coarse_begin + i;
    }
  }
}

/// A block owns one tile of one KV head of one batch. grid = (filled tiles * KV heads * batch), tiles first.
__global__ __launch_bounds__(kThreads, 4) void select_kernel(const __grid_constant__ SelectArgs args) {
  extern __shared__ int32_t shared_scratch[];
  __shared__ Shared shared;
  const DevicePlan& plan = args.plan;
  const int32_t tile_number = static_cast<int32_t>(blockIdx.x) % plan.num_tiles;
  const int64_t position = static_cast<int32_t>(blockIdx.x) / plan.num_tiles;  // batch * num_kv_heads + kv_head
  const DeviceDocument document = plan.find(&DeviceDocument::tile_begin, tile_number);
  const Pyramid pyramid = plan.pyramid(document);
  const int64_t filled = tile_number - document.tile_begin;
  const TileRun run = DevicePlan::tiles(document);
  const TileShape tile = run.tile(filled);
  int32_t* selection = args.params.selection + position * plan.gathered_len;
  int32_t* slots = args.params.slots + position * plan.num_slots;
  clear_slots(plan, document, tile, slots);

  int64_t rows_before = 0;
  int64_t expanded_before = 0;
  for (int64_t other = threadIdx.x; other < filled; other += kThreads) {
    const TileShape shape = run.tile(other);
    rows_before += tile_rows(shape, pyramid.num_levels, pyramid.log2_pool);
    expanded_before += num_expanded_coarse(shape);
  }
  rows_before = Shared::Reduce(shared.reduce).Sum(rows_before);
  __syncthreads();
  expanded_before = Shared::Reduce(shared.reduce).Sum(expanded_before);
  if (threadIdx.x == 0) {
    shared.row_begin = document.row_begin + rows_before;
    shared.expanded_begin = document.expanded_begin + expanded_before;
  }

  int32_t* scratch = shared_scratch;
  if (args.workspace_stride > 0) {
    scratch = args.params.workspace + int64_t{blockIdx.x} * args.workspace_stride;
  }
  int32_t widest = 0;
  int32_t candidates = static_cast<int32_t>(tile.num_coarse);
  for (int level = pyramid.num_levels - 1; level >= 1; --level) {
    const int32_t expanded = tile.budget < candidates ? static_cast<int32_t>(tile.budget) : candidates;
    int32_t* lists = scratch + candidates + 1;
    if (threadIdx.x == 0) {
      shared.levels[level] = {candidates, expanded, scratch, lists, lists + expanded, lists + 2 * expanded};
    }
    scratch = lists + 3 * expanded;
    widest = max(widest, candidates);
    candidates = expanded << pyramid.log2_pool;
  }
  auto* keys_qk = reinterpret_cast<uint32_t*>(scratch);
  uint32_t* keys_kq = keys_qk + widest;
  __syncthreads();

  for (int level = pyramid.num_levels - 1; level >= 1; --level) {
    const LevelList& list = shared.levels[level];
    const bool all = list.num_expanded == list.num_candidates;
    if (!all) expand_level(shared, args, document, tile, position, level, keys_qk, keys_kq, list.before);
    list_expanded(shared, pyramid, tile, level, all);
  }
  emit(shared, args, document, tile, selection, slots);
  list_windows(shared, args, document, tile, position);
}

struct InvertArgs {
  InvertParams params;
  DevicePlan plan;
};

/// A thread owns one slot of one (batch, KV head), then one row. grid = (blocks, KV heads, batch).
__global__ void clear_slots_kernel(const InvertArgs args) {
  const int64_t slot = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (slot >= args.plan.num_slots) return;
  for (int64_t position = blockIdx.y; position < args.params.batch * args.params.num_kv_heads; position += gridDim.y) {
    args.params.slots[position * args.plan.num_slots + slot] = kNoRow;
  }
}

__device__ bool is_entry(const Pyramid& pyramid, int64_t flat) {
  return flat >= 0 && flat < pyramid.entry_offset(pyramid.num_levels);
}

/// Whether a row holds what may follow the row before it, and ends its document only where that is complete: if all do,
/// the selection is a forest in gathered order. A row before that holds no entry is that row's own error.
__device__ bool stands_right(const DevicePlan& plan, const DeviceDocument& document, const int32_t* selection,
                             int64_t row) {
  const Pyramid pyramid = plan.pyramid(document);
  const int64_t flat = selection[row] - int64_t{document.entry_begin};
  if (!is_entry(pyramid, flat)) return false;
  const Entry entry = entry_at(pyramid, flat);
  const bool is_last =
      row + 1 == plan.gathered_len || plan.find(&DeviceDocument::row_begin, row + 1).row_begin == row + 1;
  if (is_last && !may_be_last(pyramid, entry)) return false;
  if (row == document.row_begin) return may_stand(pyramid, first_row(pyramid), entry);
  const int64_t before = selection[row - 1] - int64_t{document.entry_begin};
  return !is_entry(pyramid, before) || may_stand(pyramid, row_after(pyramid, entry_at(pyramid, before)), entry);
}

__global__ void invert_kernel(const __grid_constant__ InvertArgs args) {
  const int64_t row = int64_t{blockIdx.x} * kThreads + threadIdx.x;
  if (row >= args.plan.gathered_len) return;
  const DeviceDocument document = args.plan.find(&DeviceDocument::row_begin, row);
  const Pyramid pyramid = args.plan.pyramid(document);
  for (int64_t position = blockIdx.y; position < args.params.batch * args.params.num_kv_heads; position += gridDim.y) {
    const int32_t* selection = args.params.selection + position * args.plan.gathered_len;
    if (args.params.num_errors && !stands_right(args.plan, document, selection, row)) {
      atomicAdd(args.params.num_errors, 1);
    }
    const int64_t flat = selection[row] - int64_t{document.entry_begin};
    if (!is_entry(pyramid, flat)) continue;
    const Entry entry = entry_at(pyramid, flat);
    if (entry.index >= pyramid.level_size(entry.level)) continue;
    args.params
        .slots[position * args.plan.num_slots + document.slot_begin + pyramid.slot_offset(entry.level) + entry.index] =
        static_cast<int32_t>(row);
  }
}

int64_t largest_scratch(const SequencePlan& plan) {
  int64_t elements = 0;
  for (const Tile& tile : plan.tiles) {
    const Pyramid& pyramid = plan.documents[tile.document].pyramid;
    elements = std::max(elements, scratch_elements(tile.shape, pyramid.num_levels, pyramid.log2_pool));
  }
  return elements;
}

}  // namespace

int64_t select_workspace_elements(const SequencePlan& plan, int64_t batch, int64_t num_kv_heads) {
  const int64_t elements = largest_scratch(plan);
  if (elements * static_cast<int64_t>(sizeof(int32_t)) <= kMaxSharedBytes) return 0;
  return elements * static_cast<int64_t>(plan.tiles.size()) * batch * num_kv_heads;
}

void select_entries(const SelectMaximaParams& params, const SequencePlan& plan, const DevicePlan& device_plan,
                    CudaStream stream) {
  const int64_t elements = largest_scratch(plan);
  int64_t shared_bytes = elements * static_cast<int64_t>(sizeof(int32_t));
  SelectArgs args{params, device_plan, 0};
  if (shared_bytes > kMaxSharedBytes) {
    args.workspace_stride = elements;
    shared_bytes = 0;
  }
  if (shared_bytes > (32 << 10)) {
    LIGHTHOUSE_CUDA_CHECK(cudaFuncSetAttribute(select_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                               static_cast<int>(kMaxSharedBytes)));
  }
  const int64_t blocks = device_plan.num_tiles * params.num_kv_heads * params.batch;
  LIGHTHOUSE_CHECK(blocks < int64_t{1} << 31, "select: ", device_plan.num_tiles, " tiles times ", params.num_kv_heads,
                   " KV heads times batch ", params.batch, " are too many for one kernel; use a larger tile_topk");
  select_kernel<<<static_cast<unsigned>(blocks), kThreads, shared_bytes, stream>>>(args);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

void invert_selection(const InvertParams& params, const DevicePlan& plan, CudaStream stream) {
  const unsigned positions = batch_blocks(params.batch * params.num_kv_heads);
  const InvertArgs args{params, plan};
  clear_slots_kernel<<<dim3(static_cast<unsigned>(ceil_div(plan.num_slots, kThreads)), positions), kThreads, 0,
                       stream>>>(args);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  invert_kernel<<<dim3(static_cast<unsigned>(ceil_div(plan.gathered_len, kThreads)), positions), kThreads, 0, stream>>>(
      args);
  LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
}

}  // namespace lighthouse

#include "lighthouse/select.h"

#include <algorithm>
#include <bit>
#include <functional>
#include <limits>
#include <vector>

#include "lighthouse/forest.h"

namespace lighthouse {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

/// The largest score in [begin, end), a NaN counting as -infinity, and -infinity if there is none.
float max_score(const float* begin, const float* end) {
  constexpr int kLanes = 16;  // maxima of their own, so that the compiler can keep them in vector registers
  float lanes[kLanes];
  std::fill_n(lanes, kLanes, -kInfinity);
  for (; end - begin >= kLanes; begin += kLanes) {
    for (int lane = 0; lane < kLanes; ++lane) lanes[lane] = begin[lane] > lanes[lane] ? begin[lane] : lanes[lane];
  }
  float largest = -kInfinity;
  for (; begin < end; ++begin) largest = *begin > largest ? *begin : largest;
  for (const float lane : lanes) largest = lane > largest ? lane : largest;
  return largest;
}

/// A number that is larger for a higher score and, between equal scores, for a lower candidate.
uint64_t rank_key(float score, int64_t candidate) {
  const auto bits = std::bit_cast<uint32_t>(score + 0.0F);  // -0 becomes +0
  const uint32_t ordered = (bits & 0x80000000U) != 0 ? ~bits : bits | 0x80000000U;
  return (uint64_t{ordered} << 32) | (0xffffffffU - static_cast<uint32_t>(candidate));
}
int64_t candidate_of(uint64_t key) { return static_cast<int64_t>(0xffffffffU - static_cast<uint32_t>(key)); }

/// One level of a tile: where its entries are written, and its candidates in order.
struct Level {
  int64_t first_flat;               ///< flat entry of (level, 0), counted over all documents
  int64_t size;                     ///< entries that have a slot
  int32_t* slots;                   ///< [size]
  std::vector<int64_t> candidates;  ///< entries of the level
  std::vector<int64_t> rank;        ///< [candidates] number of expanded ones before, or kLeaf
};
constexpr int64_t kLeaf = -1;

/// Where one (batch, KV head) reads and writes.
struct HeadArrays {
  const float* s_qk;
  const float* s_kq;
  int32_t* selection;
  int32_t* slots;
};

/// The cascade on one tile, then its rows in order. Coarse scores are taken when an entry is ranked: few entries of the
/// finer levels ever are.
class TileSelector {
 public:
  TileSelector(const SequencePlan& plan, const Tile& tile, const HeadArrays& arrays)
      : tile_(tile),
        document_(plan.documents[tile.document]),
        pyramid_(document_.pyramid),
        cover_prefix_(plan.config.cover_prefix && document_.tiles.first == 0),
        arrays_(arrays),
        next_row_(tile.row_begin) {
    for (int level = 0; level < pyramid_.num_levels; ++level) {
      levels_[level].first_flat = document_.entry_begin + pyramid_.entry_offset(level);
      levels_[level].size = pyramid_.level_size(level);
      levels_[level].slots = arrays.slots + document_.slot_begin + pyramid_.slot_offset(level);
    }
  }

  void run() {
    clear_slots();
    Level& coarsest = levels_[pyramid_.num_levels - 1];
    for (int64_t i = 0; i < tile_.shape.num_coarse; ++i) coarsest.candidates.push_back(tile_.shape.coarse_begin + i);
    for (int level = pyramid_.num_levels - 1; level >= 1; --level) expand(level);
    for (int64_t i = 0; i < tile_.shape.num_coarse; ++i) emit(pyramid_.num_levels - 1, i);
  }

 private:
  void clear_slots() {
    for (int level = 0; level < pyramid_.num_levels; ++level) {
      const int shift = pyramid_.shift(pyramid_.num_levels - 1 - level);
      const Level& here = levels_[level];
      const int64_t begin = tile_.shape.coarse_begin << shift;
      const int64_t end = (tile_.shape.coarse_begin + tile_.shape.num_coarse) << shift;
      std::fill(here.slots + std::min(begin, here.size), here.slots + std::min(end, here.size), kNoRow);
    }
  }

  /// Chooses the expanded candidates of a level and lists their children one level down.
  void expand(int level) {
    Level& here = levels_[level];
    const auto num_candidates = static_cast<int64_t>(here.candidates.size());
    here.rank.assign(here.candidates.size(), num_candidates <= tile_.shape.budget ? 0 : kLeaf);
    if (num_candidates > tile_.shape.budget) {
      take_highest(level, arrays_.s_qk, cover_prefix_, (tile_.shape.budget + 1) / 2);
      take_highest(level, arrays_.s_kq, false, tile_.shape.budget / 2);
    }
    int64_t num_expanded = 0;
    for (int64_t candidate = 0; candidate < num_candidates; ++candidate) {
      if (here.rank[candidate] == kLeaf) continue;
      here.rank[candidate] = num_expanded++;
      const int64_t first_child = here.candidates[candidate] << pyramid_.log2_pool;
      for (int64_t i = 0; i < pyramid_.window(1); ++i) levels_[level - 1].candidates.push_back(first_child + i);
    }
  }

  /// Marks the `count` candidates with the highest scores among those that are not marked yet.
  void take_highest(int level, const float* scores, bool first_always, int64_t count) {
    if (count == 0) return;
    Level& here = levels_[level];
    keys_.clear();
    for (size_t candidate = 0; candidate < here.candidates.size(); ++candidate) {
      if (here.rank[candidate] != kLeaf) continue;
      const int64_t entry = here.candidates[candidate];
      const TokenRange window = entry_window(pyramid_, {level, entry});
      const float* first = scores + document_.token_begin;
      const float score = first_always && entry == 0 ? kInfinity : max_score(first + window.begin, first + window.end);
      keys_.push_back(rank_key(score, static_cast<int64_t>(candidate)));
    }
    // Keys differ, so which ones come first does not depend on how they are partitioned.
    std::nth_element(keys_.begin(), keys_.begin() + (count - 1), keys_.end(), std::greater<>());
    for (int64_t i = 0; i < count; ++i) here.rank[candidate_of(keys_[i])] = 0;
  }

  /// Writes the rows of a candidate: those of its children, then its own.
  void emit(int level, int64_t candidate) {
    const Level& here = levels_[level];
    if (level > 0 && here.rank[candidate] != kLeaf) {
      const int64_t first_child = here.rank[candidate] << pyramid_.log2_pool;
      for (int64_t i = 0; i < pyramid_.window(1); ++i) emit(level - 1, first_child + i);
    }
    const int64_t entry = here.candidates[candidate];
    arrays_.selection[next_row_] = static_cast<int32_t>(here.first_flat + entry);
    if (entry < here.size) here.slots[entry] = static_cast<int32_t>(next_row_);
    ++next_row_;
  }

  const Tile& tile_;
  const Document& document_;
  const Pyramid& pyramid_;
  bool cover_prefix_;
  HeadArrays arrays_;
  int64_t next_row_;
  Level levels_[kMaxLevels];
  std::vector<uint64_t> keys_;
};

/// Fills the slots of one (batch, KV head); padding has none. Returns the first row that is no entry of its document,
/// or kNoRow.
int64_t invert_head(const SequencePlan& plan, const int32_t* selection, int32_t* slots) {
  std::fill_n(slots, plan.num_slots, kNoRow);
  for (const Document& document : plan.documents) {
    const Pyramid& pyramid = document.pyramid;
    for (int64_t row = document.row_begin; row < document.row_begin + document.num_rows; ++row) {
      const int64_t flat = selection[row] - document.entry_begin;
      if (flat < 0 || flat >= pyramid.entry_offset(pyramid.num_levels)) return row;
      const Entry entry = entry_at(pyramid, flat);
      if (entry.index >= pyramid.level_size(entry.level)) continue;
      slots[document.slot_begin + pyramid.slot_offset(entry.level) + entry.index] = static_cast<int32_t>(row);
    }
  }
  return kNoRow;
}

}  // namespace

void select_entries(const SelectParams& params, const ParallelFor& parallel_for) {
  const SequencePlan& plan = *params.plan;
  const auto num_tiles = static_cast<int64_t>(plan.tiles.size());
  parallel_for(params.batch * params.num_kv_heads * num_tiles, 1, [&](int64_t begin, int64_t end) {
    for (int64_t item = begin; item < end; ++item) {
      const int64_t head = item / num_tiles;
      const HeadArrays arrays{params.s_qk + head * plan.seq_len, params.s_kq + head * plan.seq_len,
                              params.selection + head * plan.gathered_len, params.slots + head * plan.num_slots};
      TileSelector(plan, plan.tiles[item % num_tiles], arrays).run();
    }
  });
}

void invert_selection(const InvertSelectionParams& params, const ParallelFor& parallel_for) {
  const SequencePlan& plan = *params.plan;
  const SelectionView view{params.selection, params.plan, params.batch, params.num_kv_heads};
  throw_first_wrong_row(view, parallel_for, [&](int64_t head, const int32_t* selection) {
    return invert_head(plan, selection, params.slots + head * plan.num_slots);
  });
}

}  // namespace lighthouse

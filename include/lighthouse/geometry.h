// Index arithmetic of the pyramid, the tiles and the gathered sequence: every formula that turns tokens, entries, slots
// and rows into one another stands here and nowhere else. Sections refer to docs/algorithm.md.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#if defined(__CUDACC__)
#define LIGHTHOUSE_HOST_DEVICE __host__ __device__
#else
#define LIGHTHOUSE_HOST_DEVICE
#endif

namespace lighthouse {

inline constexpr int32_t kNoRow = -1;  ///< slot of an entry that was not gathered
inline constexpr int kMaxLevels = 8;

LIGHTHOUSE_HOST_DEVICE constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

/// The pyramid over one sequence (section i). Level 0 is the tokens; entry (l, i) stands for the tokens of its window
/// [i p^l, (i+1) p^l). Levels are padded so that the coarsest windows tile the sequence: padded_len() = N rounded up to
/// a multiple of F = p^(L-1).
///
/// Two flat numberings, both level after level, finest first:
///   flat entry  over padded levels (padded_len / p^l entries each): what `select` returns to users;
///   slot index  over the entries that hold a real token (ceil(N / p^l) each): position in the `slots` table.
/// They are equal when N is a multiple of F.
struct Pyramid {
  int64_t seq_len;  ///< N >= 0, tokens
  int num_levels;   ///< L
  int log2_pool;    ///< p = 1 << log2_pool

  LIGHTHOUSE_HOST_DEVICE constexpr int shift(int level) const { return level * log2_pool; }
  /// p^level, the tokens under one entry
  // NOLINTNEXTLINE(clang-analyzer-core.UndefinedBinaryOperatorResult): shift(7) is at most 28
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t window(int level) const { return int64_t{1} << shift(level); }
  /// n = ceil(N / F)
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t num_coarse() const { return level_size(num_levels - 1); }
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t padded_len() const { return num_coarse() << shift(num_levels - 1); }
  /// flat entry of (level, 0); entry_offset(L) is the number of flat entries
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t entry_offset(int level) const {
    int64_t offset = 0;
    for (int finer = 0; finer < level; ++finer) offset += padded_len() >> shift(finer);
    return offset;
  }
  /// slot index of (level, 0); slot_offset(L) is the length of the slots table
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t slot_offset(int level) const {
    int64_t offset = 0;
    for (int finer = 0; finer < level; ++finer) offset += level_size(finer);
    return offset;
  }
  /// entries of the level that hold a real token
  LIGHTHOUSE_HOST_DEVICE constexpr int64_t level_size(int level) const {
    return (seq_len + window(level) - 1) >> shift(level);
  }
};

/// Entry (level, index) of a pyramid.
struct Entry {
  int level;
  int64_t index;
};

/// The entry that a flat entry names; `flat` must be in [0, entry_offset(L)).
LIGHTHOUSE_HOST_DEVICE constexpr Entry entry_at(const Pyramid& pyramid, int64_t flat) {
  int level = 0;
  for (; level + 1 < pyramid.num_levels; ++level) {
    const int64_t size = pyramid.padded_len() >> pyramid.shift(level);
    if (flat < size) break;
    flat -= size;
  }
  return {level, flat};
}

/// Tokens [begin, end) of a sequence.
struct TokenRange {
  int64_t begin;
  int64_t end;
};

/// The window of an entry cut at N, empty where it holds no real token (section i).
LIGHTHOUSE_HOST_DEVICE constexpr TokenRange entry_window(const Pyramid& pyramid, Entry entry) {
  const int64_t begin = entry.index << pyramid.shift(entry.level);
  const int64_t end = begin + pyramid.window(entry.level);
  return {begin < pyramid.seq_len ? begin : pyramid.seq_len, end < pyramid.seq_len ? end : pyramid.seq_len};
}

/// The inverse: index of the level's entry whose window holds `token`.
LIGHTHOUSE_HOST_DEVICE constexpr int64_t entry_holding(const Pyramid& pyramid, int level, int64_t token) {
  return token >> pyramid.shift(level);
}

/// The tokens that the row of an entry is added to (section vi), cut at N: p^l tokens from the last of its window on.
LIGHTHOUSE_HOST_DEVICE constexpr TokenRange scatter_range(const Pyramid& pyramid, Entry entry) {
  const int64_t begin = ((entry.index + 1) << pyramid.shift(entry.level)) - 1;
  const int64_t end = begin + pyramid.window(entry.level);
  return {begin < pyramid.seq_len ? begin : pyramid.seq_len, end < pyramid.seq_len ? end : pyramid.seq_len};
}

/// The inverse: index of the level's entry whose row is added to `token`, or -1 when the token lies before all of them.
LIGHTHOUSE_HOST_DEVICE constexpr int64_t scattered_entry(const Pyramid& pyramid, int level, int64_t token) {
  return ((token + 1) >> pyramid.shift(level)) - 1;
}

/// Where part `part` of `parts` begins when `total` items are cut into contiguous parts (section iii).
LIGHTHOUSE_HOST_DEVICE constexpr int64_t split_begin(int64_t total, int64_t parts, int64_t part) {
  return part * total / parts;
}

/// A run of coarsest entries that is selected independently of all others, counted within its document.
struct TileShape {
  int64_t coarse_begin;
  int64_t num_coarse;  ///< n_t >= 1
  int64_t budget;      ///< m_t >= 1
};

/// Tiles of a document that hold an entry: min(T, n). The others emit nothing and are left out.
LIGHTHOUSE_HOST_DEVICE constexpr int64_t num_filled_tiles(int64_t num_coarse, int64_t num_tiles) {
  return num_tiles < num_coarse ? num_tiles : num_coarse;
}

/// The `filled`-th of those: n coarsest entries and the budget k are both cut into T parts (section iii).
LIGHTHOUSE_HOST_DEVICE constexpr TileShape tile_shape(int64_t num_coarse, int64_t num_tiles, int64_t topk,
                                                      int64_t filled) {
  const int64_t tile = num_tiles <= num_coarse ? filled : ceil_div((filled + 1) * num_tiles, num_coarse) - 1;
  const int64_t coarse_begin = split_begin(num_coarse, num_tiles, tile);
  const int64_t budget_begin = split_begin(topk, num_tiles, tile);
  return {coarse_begin, split_begin(num_coarse, num_tiles, tile + 1) - coarse_begin,
          split_begin(topk, num_tiles, tile + 1) - budget_begin};
}

/// How a document is cut into tiles (section iii), and the run of filled tiles that a plan holds: all, or a part of
/// them.
struct TileRun {
  int64_t num_coarse;    ///< n_i, of the whole document
  int64_t num_tiles;     ///< T_i = ceil(n_i T / n)
  int64_t topk;          ///< k_i = floor(T_i k / T): T_i m when m divides k, and k for a document alone
  int64_t first;         ///< filled tiles of the document before the run
  int64_t count;         ///< filled tiles of the run
  int64_t coarse_begin;  ///< coarsest entries of the document before the run

  /// Tile `filled` of the run, its entries counted from the run's first on.
  LIGHTHOUSE_HOST_DEVICE constexpr TileShape tile(int64_t filled) const {
    TileShape shape = tile_shape(num_coarse, num_tiles, topk, first + filled);
    shape.coarse_begin -= coarse_begin;
    return shape;
  }
};

/// Rows that a tile emits: its coarsest entries, and p for each expanded one (section iii).
LIGHTHOUSE_HOST_DEVICE constexpr int64_t tile_rows(const TileShape& tile, int num_levels, int log2_pool) {
  int64_t rows = tile.num_coarse;
  int64_t candidates = tile.num_coarse;
  for (int level = num_levels - 1; level >= 1; --level) {
    candidates = (tile.budget < candidates ? tile.budget : candidates) << log2_pool;
    rows += candidates;
  }
  return rows;
}

/// What the user chooses about the pyramid and the selection. Names as in the paper's code.
struct SelectionConfig {
  int64_t num_levels = 3;      ///< L in [1, 8]; 1 is plain attention
  int64_t pooling_factor = 4;  ///< p in {2, 4, 8, 16}
  int64_t topk = 1;            ///< k >= 1, entries expanded per level over the whole row; too many: plain attention
  int64_t tile_topk = 128;     ///< m >= 1, the share of k that one tile is given; T = ceil(k / m) tiles
  bool cover_prefix = true;    ///< always expand entry 0 of every level, so that every token has a row

  /// Throws InvalidArgument naming `operation`, the key, its value and the limit.
  void validate(const char* operation) const;
  int log2_pool() const;  ///< of a validated config
};

/// One tile of a plan; of a document that is attended to in full it is a run of tokens.
struct Tile {
  int32_t document;
  TileShape shape;
  int64_t row_begin;  ///< first row, counted over the whole gathered sequence
  int64_t num_rows;
};

/// One document of a packed row; an unpacked row is one document. One that would not get shorter is attended to in full
/// (section iii): its pyramid has one level, so its rows are its tokens, in order.
struct Document {
  Pyramid pyramid;      ///< of the levels that are selected from: all, or level 0 alone; of the run's tokens in a part
  int64_t token_begin;  ///< first token in the row
  int64_t entry_begin;  ///< added to its flat entries in `selection`; the entries of all levels count, gathered or not
  int64_t slot_begin;   ///< added to its slot indices
  TileRun tiles;
  int64_t row_begin;  ///< its rows are [row_begin, row_begin + num_rows) of the gathered sequence
  int64_t num_rows;
  int64_t tokens_after;  ///< tokens of it behind the run that rows of the run are added to: at most F - 1; 0 of a whole

  /// Tokens at its front that rows of a run before are added to: at most F - 1, and none where it begins here.
  constexpr int64_t tokens_reached() const {
    const int64_t reach = pyramid.window(pyramid.num_levels - 1) - 1;
    return tiles.first == 0 ? 0 : reach < pyramid.seq_len ? reach : pyramid.seq_len;
  }
};

/// Everything about one call that is known on the host before anything runs (sections iii, "Packed documents").
struct SequencePlan {
  SelectionConfig config;
  int64_t seq_len = 0;              ///< N, over all documents
  int64_t gathered_len = 0;         ///< S <= N, but for a part
  int64_t num_entries = 0;          ///< flat entries of all pyramids
  int64_t num_slots = 0;            ///< length of the slots table
  std::vector<Document> documents;  ///< empty documents included, with 0 rows
  std::vector<Tile> tiles;          ///< in gathered order; tiles without entries are left out

  /// Whether no sequence of the row would get shorter, so that the call is plain causal attention (section iii).
  bool is_full() const { return num_slots == seq_len; }
};

/// Validates and lays out a row of `seq_len` tokens. `cu_seqlens` is empty for an unpacked row, or [num_docs + 1] token
/// offsets from 0 to seq_len that never decrease. Throws InvalidArgument, naming `operation`, also where an index would
/// not fit int32 (entries or rows >= 2^31).
SequencePlan make_plan(const SelectionConfig& config, int64_t seq_len, std::span<const int64_t> cu_seqlens = {},
                       const char* operation = "lighthouse");

/// Tiles [tile_begin, tile_end) of a plan, with tile_begin < tile_end, as a plan of their tokens and rows alone, both
/// counted from the first of them on. A document that the cut goes through has a run of its tiles in each part, a
/// document without tokens is in none. What select, gather, scatter and their adjoints make of the parts, one behind
/// another, are the bits of the whole, provided that scatter and its adjoint are given what crosses the cut (carried
/// and dout_after in scatter.h); entries and slots are numbered within the part.
SequencePlan part_of(const SequencePlan& plan, int64_t tile_begin, int64_t tile_end);

/// S of a row, unpacked or with documents at `cu_seqlens` (section iii, "Packed documents").
int64_t gathered_length(int64_t seq_len, const SelectionConfig& config, std::span<const int64_t> cu_seqlens = {});

}  // namespace lighthouse

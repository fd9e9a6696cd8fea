// What a kernel knows of a SequencePlan: plain values, passed by value, and for packed rows a table of documents.
#pragma once

#include <cstdint>
#include <vector>

#include "lighthouse/geometry.h"

struct CUstream_st;

namespace lighthouse {

/// cudaStream_t, without CUDA's headers.
using CudaStream = CUstream_st*;

/// One document as the kernels see it. All counts start at 0 with the first document.
struct DeviceDocument {
  int32_t seq_len;     ///< tokens
  int32_t num_levels;  ///< of its pyramid: 1 where it is attended to in full
  int32_t token_begin;
  int32_t entry_begin;  ///< flat entries
  int32_t slot_begin;
  int32_t row_begin;
  int32_t maxima_begin;                           ///< entries of the levels from 1 up
  int32_t coarse_begin;                           ///< windows of F tokens of all documents before
  int32_t tile_begin;                             ///< filled tiles of all documents before
  int32_t tiles_coarse, num_tiles, topk;          ///< TileRun: of the whole document
  int32_t first_tile, num_filled, coarse_before;  ///< and of the plan's run of it
  int32_t group_begin;                            ///< groups of 16 tokens of all documents before
  int32_t unit_begin;                             ///< units of all documents before
  int32_t expanded_begin;                         ///< windows of F tokens that gather reads, of all documents before
};

/// Work is dealt out in groups of 16 aligned tokens of a document, or in units: a coarsest window, but at least 8 and
/// at most 64 tokens. There is one more of them than the tokens fill, for what is aligned to token + 1 (scatter).
inline constexpr int kLog2Group = 4;
inline constexpr int kLog2Octet = 3;
inline constexpr int kLog2MaxUnit = 6;
LIGHTHOUSE_HOST_DEVICE constexpr int log2_unit(int num_levels, int log2_pool) {
  const int coarse = (num_levels - 1) * log2_pool;
  return coarse < kLog2Octet ? kLog2Octet : coarse > kLog2MaxUnit ? kLog2MaxUnit : coarse;
}
LIGHTHOUSE_HOST_DEVICE constexpr int64_t num_groups(int64_t seq_len) { return (seq_len >> kLog2Group) + 1; }
LIGHTHOUSE_HOST_DEVICE constexpr int64_t num_units(int64_t seq_len, int num_levels, int log2_pool) {
  const Pyramid pyramid{seq_len, num_levels, log2_pool};
  return ceil_div(pyramid.padded_len(), int64_t{1} << log2_unit(num_levels, log2_pool)) + 1;
}

struct DevicePlan {
  DeviceDocument only;              ///< the one document of an unpacked row
  const DeviceDocument* documents;  ///< device memory [num_documents] when num_documents > 1, else unused
  int32_t num_documents;
  int32_t num_levels, log2_pool;             ///< L; 1 where every document is attended to in full
  int32_t seq_len, gathered_len, num_slots;  ///< N, S, length of the slots table
  int32_t num_coarse, num_tiles;             ///< over all documents: windows of F tokens, filled tiles
  int32_t num_maxima;                        ///< num_slots - seq_len: entries of the levels from 1 up
  int32_t num_groups, num_units;             ///< over all documents
  int32_t num_expanded;  ///< windows of F tokens that a KV head's gather reads, over all documents: of expanded entries
                         ///< and of what is attended to in full; 0 with one level
  bool has_padding;      ///< some document's length is no multiple of F: rows that hold no token
  bool cover_prefix;

  int32_t level_size[kMaxLevels];     ///< of the one document of an unpacked row, as Pyramid::level_size
  int32_t level_begin[kMaxLevels];    ///< and Pyramid::slot_offset
  int8_t level_of[kLog2MaxUnit + 1];  ///< the level whose windows hold 2^i tokens, or -1

  LIGHTHOUSE_HOST_DEVICE static TileRun tiles(const DeviceDocument& document) {
    return {document.tiles_coarse, document.num_tiles,  document.topk,
            document.first_tile,   document.num_filled, document.coarse_before};
  }
  LIGHTHOUSE_HOST_DEVICE Pyramid pyramid(const DeviceDocument& document) const {
    return {document.seq_len, document.num_levels, log2_pool};
  }
  /// Pyramid::level_size and slot_offset in 32 bits, and looked up where there is one document. A level that the
  /// document's pyramid does not have is empty.
  LIGHTHOUSE_HOST_DEVICE int32_t size_of(const DeviceDocument& document, int level) const {
    if (num_documents == 1) return level_size[level];
    return level < document.num_levels ? narrow_size(document.seq_len, level) : 0;
  }
  LIGHTHOUSE_HOST_DEVICE int32_t begin_of(const DeviceDocument& document, int level) const {
    if (num_documents == 1) return level_begin[level];
    int32_t begin = 0;
    for (int finer = 0; finer < level; ++finer) begin += narrow_size(document.seq_len, finer);
    return begin;
  }
  /// The last document whose `field` is at most `position`, so empty documents are passed over.
  LIGHTHOUSE_HOST_DEVICE DeviceDocument find(int32_t DeviceDocument::*field, int64_t position) const {
    if (num_documents == 1) return only;
    int32_t low = 0;
    int32_t high = num_documents;  // documents[low].field <= position < documents[high].field
    while (high - low > 1) {
      const int32_t middle = (low + high) / 2;
      (documents[middle].*field <= position ? low : high) = middle;
    }
    return documents[low];
  }
  /// Where the maxima of (level, entry 0) of a document start, level >= 1, in an array of num_maxima.
  LIGHTHOUSE_HOST_DEVICE int32_t maxima_begin(const DeviceDocument& document, int level) const {
    return document.maxima_begin + begin_of(document, level) - document.seq_len;
  }

 private:
  LIGHTHOUSE_HOST_DEVICE int32_t narrow_size(int32_t tokens, int level) const {
    const int shift = level * log2_pool;
    return static_cast<int32_t>((static_cast<uint32_t>(tokens) + (uint32_t{1} << shift) - 1) >> shift);
  }
};

/// Coarsest entries that a tile expands, if there are finer levels.
LIGHTHOUSE_HOST_DEVICE constexpr int64_t num_expanded_coarse(const TileShape& tile) {
  return tile.budget < tile.num_coarse ? tile.budget : tile.num_coarse;
}

/// The records of all documents, empty ones left out; the caller copies them to the device where there are two or more.
std::vector<DeviceDocument> device_documents(const SequencePlan& plan);

/// `documents` is the table's host copy; the returned plan's device pointer is null, for the caller to set.
DevicePlan make_device_plan(const SequencePlan& plan, const std::vector<DeviceDocument>& documents);

}  // namespace lighthouse

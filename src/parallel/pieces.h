// Which rank keeps the moments of which parameters and updates them (ZeRO-1). Knows no torch.
#pragma once

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

namespace lighthouse {

/// A run of elements of a parameter, counted in its memory order: what one rank owns, sums and updates.
struct Piece {
  int64_t parameter;   ///< index
  int64_t begin, end;  ///< elements
  int64_t size() const { return end - begin; }
};

/// Parameters are cut every so many elements, a multiple of 64. The cut is the same for any number of ranks, and a norm
/// or an update of pieces therefore has the same bits.
inline constexpr int64_t kPieceElements = int64_t{1} << 24;
/// Not cut at all: what one process may do that need not have the bits of several.
inline constexpr int64_t kWholeParameters = std::numeric_limits<int64_t>::max();

/// Parameters of `sizes` elements as pieces, in order.
std::vector<Piece> pieces_of(std::span<const int64_t> sizes, int64_t piece_elements = kPieceElements);

/// Elements of all ranks that one collective exchanges.
inline constexpr int64_t kBucketElements = int64_t{1} << 25;
/// So many collectives are under way at a time: while one is, what came by the one before is put in its place.
inline constexpr int64_t kBucketsUnderWay = 2;

/// The rank that owns each piece: the largest are dealt out first, to the rank that has the fewest elements.
std::vector<int64_t> owners_of(std::span<const Piece> pieces, int64_t num_ranks);
/// How many elements each rank owns.
std::vector<int64_t> owned_elements(std::span<const Piece> pieces, std::span<const int64_t> owners, int64_t num_ranks);

/// So many elements of each rank are exchanged at once: the same of all, so that all send and receive at the same time.
int64_t stretch_elements(int64_t bucket_elements, int64_t num_ranks);
/// What each rank owns, cut into stretches of so many elements (the last is shorter): [stretch][rank], parts of pieces.
std::vector<std::vector<std::vector<Piece>>> stretches_of(std::span<const Piece> pieces,
                                                          std::span<const int64_t> owners, int64_t num_ranks,
                                                          int64_t stretch);

}  // namespace lighthouse

#include "parallel/pieces.h"

#include <algorithm>
#include <numeric>

#include "lighthouse/check.h"

namespace lighthouse {

std::vector<Piece> pieces_of(std::span<const int64_t> sizes, int64_t piece_elements) {
  LIGHTHOUSE_CHECK(piece_elements >= 1, "pieces: of ", piece_elements, " elements; must be at least 1");
  std::vector<Piece> pieces;
  for (size_t i = 0; i < sizes.size(); ++i) {
    for (int64_t begin = 0; begin < sizes[i]; begin += piece_elements) {
      pieces.push_back({static_cast<int64_t>(i), begin, std::min(begin + piece_elements, sizes[i])});
    }
  }
  return pieces;
}

std::vector<int64_t> owners_of(std::span<const Piece> pieces, int64_t num_ranks) {
  LIGHTHOUSE_CHECK(num_ranks >= 1, "pieces: for ", num_ranks, " ranks; must be at least 1");
  std::vector<size_t> order(pieces.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return pieces[a].size() > pieces[b].size(); });
  std::vector<int64_t> elements(static_cast<size_t>(num_ranks), 0), owners(pieces.size());
  for (const size_t piece : order) {
    const auto least = std::min_element(elements.begin(), elements.end());
    *least += pieces[piece].size();
    owners[piece] = least - elements.begin();
  }
  return owners;
}

}  // namespace lighthouse

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

std::vector<int64_t> owned_elements(std::span<const Piece> pieces, std::span<const int64_t> owners, int64_t num_ranks) {
  std::vector<int64_t> elements(static_cast<size_t>(num_ranks), 0);
  for (size_t i = 0; i < pieces.size(); ++i) elements[static_cast<size_t>(owners[i])] += pieces[i].size();
  return elements;
}

int64_t stretch_elements(int64_t bucket_elements, int64_t num_ranks) {
  return (bucket_elements + num_ranks - 1) / num_ranks;
}

std::vector<std::vector<std::vector<Piece>>> stretches_of(std::span<const Piece> pieces,
                                                          std::span<const int64_t> owners, int64_t num_ranks,
                                                          int64_t stretch) {
  LIGHTHOUSE_CHECK(stretch >= 1, "pieces: stretches of ", stretch, " elements; must be at least 1");
  std::vector<std::vector<std::vector<Piece>>> stretches;
  std::vector<int64_t> seen(static_cast<size_t>(num_ranks), 0);  // elements of each rank so far
  for (size_t i = 0; i < pieces.size(); ++i) {
    int64_t& place = seen[static_cast<size_t>(owners[i])];
    for (int64_t begin = pieces[i].begin; begin < pieces[i].end;) {
      const auto at = static_cast<size_t>(place / stretch);
      const int64_t end = std::min(pieces[i].end, begin + stretch - place % stretch);
      if (at == stretches.size()) stretches.emplace_back(static_cast<size_t>(num_ranks));
      stretches[at][static_cast<size_t>(owners[i])].push_back({pieces[i].parameter, begin, end});
      place += end - begin;
      begin = end;
    }
  }
  return stretches;
}

}  // namespace lighthouse

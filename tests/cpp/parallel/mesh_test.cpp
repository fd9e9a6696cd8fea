// How a mesh deals items out to ranks.
#include "parallel/mesh.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <set>

#include "cpp/parallel/ranks.h"

namespace lighthouse {
namespace {

using parallel_test::run_ranks;

/// "", or what does not hold of `count` items.
std::string problem_of(const Mesh& mesh, int64_t count) {
  std::vector<int64_t> next(static_cast<size_t>(mesh.size()), 0);
  for (int64_t item = 0; item < count; ++item) {
    std::set<int64_t> ranks;
    for (int64_t sharer = 0; sharer < mesh.context_size(); ++sharer) ranks.insert(mesh.rank_of(item, sharer));
    if (static_cast<int64_t>(ranks.size()) != mesh.context_size()) return "an item has too few ranks";
    if (mesh.has(item) != ranks.contains(mesh.rank())) return "has and rank_of differ";
    if (mesh.has(item) && mesh.rank_of(item, mesh.context_rank()) != mesh.rank()) return "wrong sharer";
    for (const int64_t rank : ranks) {
      if (mesh.place_of(item) != next[static_cast<size_t>(rank)]++) return "places do not follow one another";
    }
  }
  if (mesh.count_of(count) != next[static_cast<size_t>(mesh.rank())]) return "count_of is wrong";
  return *std::max_element(next.begin(), next.end()) == mesh.most_of(count) ? "" : "most_of is wrong";
}

std::string problem_of(const Mesh& mesh) {
  for (const int64_t count : {0, 1, 2, 3, 7, 12}) {
    std::string problem = problem_of(mesh, count);
    if (!problem.empty()) return problem + ", of " + std::to_string(count) + " items";
  }
  return "";
}

TEST(Meshes, DealItemsOutInTurn) {
  EXPECT_EQ(problem_of(Mesh()), "");
  for (const int64_t context : {1, 2, 4}) {
    for (const auto& outcome : run_ranks(4, [&](World& world) { return problem_of(Mesh(world, context)); })) {
      EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
      EXPECT_EQ(outcome.text, "") << context << " ranks share an item";
    }
  }
}

TEST(Meshes, AreOfWholeGroups) {
  for (const auto& outcome : run_ranks(3, [](World& world) {
         Mesh(world, 2);
         return "";
       })) {
    EXPECT_EQ(outcome.text, "mesh: 3 ranks cannot share sequences by 2; the number of ranks must be a multiple");
  }
}

}  // namespace
}  // namespace lighthouse

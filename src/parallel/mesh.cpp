#include "parallel/mesh.h"

#include <numeric>
#include <string>
#include <vector>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

std::vector<int64_t> ranks_from(int64_t first, int64_t count) {
  std::vector<int64_t> ranks(static_cast<size_t>(count));
  std::iota(ranks.begin(), ranks.end(), first);
  return ranks;
}

int64_t whole_groups(const World& world, int64_t context_size) {
  LIGHTHOUSE_CHECK(context_size >= 1 && world.size() % context_size == 0, "mesh: ", world.size(),
                   " ranks cannot share sequences by ", context_size, "; the number of ranks must be a multiple");
  return world.size() / context_size;
}

}  // namespace

Mesh::Mesh() : all_(std::make_unique<Group>()), context_(std::make_unique<Group>()) {}

Mesh::Mesh(World& world, int64_t context_size)
    : MeshShape(whole_groups(world, context_size), context_size, world.rank()), world_(&world) {}

void Mesh::connect() {
  if (world_ == nullptr) return;
  all_ = world_->make_group("all", ranks_from(0, size()));
  context_ = world_->make_group("context " + std::to_string(data_rank()),
                                ranks_from(data_rank() * context_size(), context_size()));
}

}  // namespace lighthouse

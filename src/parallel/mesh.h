// The ranks of a run, and how they reach one another.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/group.h"
#include "parallel/mesh_shape.h"
#include "parallel/world.h"

namespace lighthouse {

/// With the groups in which its ranks exchange. By default this process is alone.
class Mesh : public MeshShape {
 public:
  Mesh();
  /// Throws InvalidArgument unless context_size divides the number of ranks. `world` outlives the mesh.
  Mesh(World& world, int64_t context_size);

  /// Makes the groups; all ranks call it at the same time, once.
  void connect();

  World* world() const { return world_; }  ///< null: alone
  Group& all() const { return *all_; }
  Group& context() const { return *context_; }  ///< ranks that share a sequence with this one

 private:
  World* world_ = nullptr;
  std::unique_ptr<Group> all_, context_;
};

}  // namespace lighthouse

// The ranks of a run as a grid: some share each sequence, others take other sequences.
#pragma once

#include <cstdint>
#include <memory>

#include "parallel/group.h"
#include "parallel/world.h"

namespace lighthouse {

/// Rank = data_rank * context_size + context_rank: ranks that share a sequence are neighbours, on one machine if they
/// can be. By default this process is alone.
class Mesh {
 public:
  Mesh();
  /// Throws InvalidArgument unless context_size divides the number of ranks. `world` outlives the mesh.
  Mesh(World& world, int64_t context_size);

  /// Makes the groups; all ranks call it at the same time, once.
  void connect();

  int64_t size() const { return data_size_ * context_size_; }
  int64_t rank() const { return data_rank_ * context_size_ + context_rank_; }
  bool is_first() const { return rank() == 0; }
  int64_t data_size() const { return data_size_; }
  int64_t data_rank() const { return data_rank_; }
  int64_t context_size() const { return context_size_; }
  int64_t context_rank() const { return context_rank_; }

  // Items (micro-batches, sequences) are dealt out in turn to the groups that share one: item i to group
  // i mod data_size(), whose every rank has a part of it.
  bool has(int64_t item) const { return item % data_size_ == data_rank_; }
  int64_t rank_of(int64_t item, int64_t sharer) const { return item % data_size_ * context_size_ + sharer; }
  int64_t place_of(int64_t item) const { return item / data_size_; }  ///< among the items of its ranks
  int64_t most_of(int64_t count) const { return (count + data_size_ - 1) / data_size_; }  ///< of so many, on a rank

  World* world() const { return world_; }  ///< null: alone
  Group& all() const { return *all_; }
  Group& context() const { return *context_; }  ///< ranks that share a sequence with this one

 private:
  World* world_ = nullptr;
  int64_t data_size_ = 1, data_rank_ = 0, context_size_ = 1, context_rank_ = 0;
  std::unique_ptr<Group> all_, context_;
};

}  // namespace lighthouse

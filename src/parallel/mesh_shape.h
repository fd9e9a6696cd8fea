// The ranks of a run as a grid: some share each sequence, others take other sequences. Knows no torch.
#pragma once

#include <cstdint>

namespace lighthouse {

/// Rank = data_rank * context_size + context_rank: ranks that share a sequence are neighbours, on one machine if they
/// can be. By default there is one.
class MeshShape {
 public:
  MeshShape() = default;
  /// Of rank `rank`.
  MeshShape(int64_t data_size, int64_t context_size, int64_t rank)
      : data_size_(data_size),
        data_rank_(rank / context_size),
        context_size_(context_size),
        context_rank_(rank % context_size) {}

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
  int64_t count_of(int64_t count) const {                             ///< of so many, on this rank
    return (count + data_size_ - 1 - data_rank_) / data_size_;
  }
  int64_t most_of(int64_t count) const { return (count + data_size_ - 1) / data_size_; }  ///< on any rank

 private:
  int64_t data_size_ = 1, data_rank_ = 0, context_size_ = 1, context_rank_ = 0;
};

}  // namespace lighthouse

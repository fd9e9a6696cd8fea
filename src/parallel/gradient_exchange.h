// Data parallelism: gradients are summed where their parameter is owned, and updated parameters go to all ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "parallel/group.h"
#include "parallel/pieces.h"

namespace lighthouse {

/// For parameters that all ranks of a group hold whole, with gradients of their own shares of a step's sequences. The
/// sums are trees over the ranks (tree_sum), so every number of ranks that is a power of two has the same bits as the
/// tree on one. Every rank calls reduce and spread in the same order.
class GradientExchange {
 public:
  /// `parameters`: contiguous, of one dtype and device; they must stay. `piece_elements`, `bucket_elements` (of all
  /// ranks, in one collective): for tests.
  GradientExchange(std::vector<at::Tensor> parameters, Group& group, int64_t piece_elements = kPieceElements,
                   int64_t bucket_elements = kBucketElements);

  const std::vector<Piece>& pieces() const { return pieces_; }
  const std::vector<int64_t>& owners() const { return owners_; }  ///< of each piece, a rank
  bool owns(size_t piece) const { return owners_[piece] == group_.rank(); }
  std::vector<Piece> owned() const;  ///< of this rank, in order

  /// Of contiguous `gradients`, one for each parameter: own pieces become the sums over all ranks; the others are what
  /// they were.
  void reduce(const std::vector<at::Tensor>& gradients) const;
  /// Own pieces of the parameters are copied to all ranks.
  void spread() const;

 private:
  /// Parts of the pieces of each rank, exchanged at once.
  using Bucket = std::vector<std::vector<Piece>>;
  /// A bucket under way.
  struct Sent {
    const Bucket* bucket;
    at::Tensor in, out;
    Pending pending;
  };
  Sent send_gradients(const std::vector<at::Tensor>& gradients, const Bucket& bucket) const;
  void take_sums(const std::vector<at::Tensor>& gradients, Sent sent) const;
  Sent send_parameters(const Bucket& bucket) const;
  void take_parameters(Sent sent) const;

  std::vector<at::Tensor> parameters_;
  Group& group_;
  std::vector<Piece> pieces_;
  std::vector<int64_t> owners_;
  std::vector<Bucket> buckets_;
};

}  // namespace lighthouse

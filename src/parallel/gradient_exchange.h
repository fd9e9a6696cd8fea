// Data parallelism: gradients are summed where their parameter is owned, and updated parameters go to all ranks.
#pragma once

#include <ATen/core/Tensor.h>

#include <deque>
#include <functional>
#include <utility>
#include <vector>

#include "parallel/group.h"
#include "parallel/pieces.h"
#include "parallel/side_stream.h"

namespace lighthouse {

/// Parts of the pieces of each rank, exchanged at once.
using Bucket = std::vector<std::vector<Piece>>;

/// For parameters that all ranks of a group have whole, with gradients of their own shares of a step's sequences. The
/// sums are trees over the ranks (tree_sum), so every number of ranks that is a power of two has the same bits as the
/// tree on one. Every rank calls the same in the same order.
class GradientExchange {
 public:
  /// `parameters`: of one dtype and device, as their gradients. `piece_elements`, `bucket_elements` (of all ranks, in
  /// one collective): for tests.
  GradientExchange(std::vector<at::Tensor> parameters, Group& group, int64_t piece_elements = kPieceElements,
                   int64_t bucket_elements = kBucketElements);

  const std::vector<Piece>& pieces() const { return pieces_; }
  const std::vector<int64_t>& owners() const { return owners_; }  ///< of each piece, a rank
  bool owns(size_t piece) const { return owners_[piece] == group_.rank(); }
  std::vector<Piece> owned() const;  ///< of this rank, in order

  /// GradientReduction of contiguous `gradients` that are all there, one for each parameter.
  void reduce(const std::vector<at::Tensor>& gradients) const;
  /// Own pieces of `tensors`, one for each parameter and of its size, are copied to all ranks: the parameters
  /// themselves, or what is made of them. Contiguous, of one dtype, on the device or page-locked on the host; those
  /// that are undefined, on all ranks, have no part in it.
  void spread(const std::vector<at::Tensor>& tensors) const;

 private:
  friend class GradientReduction;
  std::vector<at::Tensor> parameters_;
  Group& group_;
  SideStream side_;
  std::vector<Piece> pieces_;
  std::vector<int64_t> owners_;
  std::vector<Bucket> buckets_;
};

/// A bucket under way.
struct SentBucket {
  const Bucket* bucket;
  at::Tensor in, out;
  Pending pending;
};

/// Buckets under way: as soon as they are kBucketsUnderWay, the oldest is waited for and given to `take`.
class BucketsUnderWay {
 public:
  explicit BucketsUnderWay(std::function<void(SentBucket)> take) : take_(std::move(take)) {}
  void add(SentBucket sent);
  void finish();  ///< takes all
  /// Seconds for which the host has waited: none on a GPU, where a stream does.
  double waited_seconds() const { return waited_seconds_; }

 private:
  void take_oldest();

  std::function<void(SentBucket)> take_;
  std::deque<SentBucket> sent_;
  double waited_seconds_ = 0;
};

/// The sum of one step's gradients over the ranks, which begins while a backward pass makes more of them: a bucket is
/// sent as soon as its gradients are there. Buckets go in the order in which backward passes complete them, from the
/// last parameters to the first, whatever the order of add: it is the same on all ranks. On a GPU they are packed,
/// exchanged and summed on streams of their own; the stream that calls add waits for nothing before finish.
class GradientReduction {
 public:
  /// `exchange` must stay.
  explicit GradientReduction(const GradientExchange& exchange);
  GradientReduction(const GradientReduction&) = delete;
  GradientReduction& operator=(const GradientReduction&) = delete;

  /// The gradient of a parameter, whose own part is there: contiguous, of its size, not touched before finish. Once for
  /// each parameter. Throws RankFailure, as finish.
  void add(size_t parameter, const at::Tensor& gradient);
  /// Own pieces of the gradients are the sums over all ranks; the others are what they were. Throws InvalidArgument
  /// where a gradient is missing.
  void finish();
  /// Seconds that add has waited for other ranks.
  double waited_seconds() const { return under_way_.waited_seconds(); }

 private:
  bool is_there(const Bucket& bucket) const;
  SentBucket send(const Bucket& bucket) const;
  void take(SentBucket sent) const;

  const GradientExchange& exchange_;
  std::vector<at::Tensor> gradients_;  ///< [parameters]; undefined: not there yet
  size_t num_left_;                    ///< buckets that are not sent, the first ones
  BucketsUnderWay under_way_;
};

}  // namespace lighthouse

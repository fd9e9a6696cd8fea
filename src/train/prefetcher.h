// The batches of the next steps, made while this one runs.
#pragma once

#include <c10/core/Device.h>

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <exception>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

#include "data/sequence_loader.h"
#include "model/batch.h"

namespace lighthouse {

/// Makes batches on a thread of its own, at most two steps ahead. It holds no position: that is the caller's, who says
/// which step it takes, so that a checkpoint counts what was trained on and not what was made.
class BatchPrefetcher {
 public:
  /// A step is `num_batches` batches of `batch_size` sequences, of which batches `first`, `first` + `stride`, … are
  /// made. The loader must outlive this object. The thread begins with the first take().
  /// `cut`, where it is not empty, makes this rank's share of each.
  BatchPrefetcher(const SequenceLoader& loader, int64_t batch_size, int64_t num_batches, at::Device device,
                  int64_t first = 0, int64_t stride = 1, std::function<Batch(Batch)> cut = {});
  ~BatchPrefetcher();
  BatchPrefetcher(const BatchPrefetcher&) = delete;
  BatchPrefetcher& operator=(const BatchPrefetcher&) = delete;

  /// The batches, on the device, of the step whose first sequence is `first_sequence`. After the first call they are
  /// mostly there, when each step is the one that follows the last; any other is made anew. An exception of the loader
  /// is thrown here, for the step that needs the data, as it was; the next call tries again.
  std::vector<Batch> take(int64_t first_sequence);

 private:
  /// One step, made or failed.
  struct Step {
    std::vector<Batch> batches;  ///< in host memory, pinned for CUDA
    std::exception_ptr error;    ///< not null: there are no batches
  };

  void run();
  Step make_step(int64_t first_sequence) const;
  int64_t sequences_per_step() const { return batch_size_ * num_batches_; }
  Step next_step(int64_t first_sequence);

  // Constant while the thread runs; the loader is safe for several threads.
  const SequenceLoader& loader_;
  const int64_t batch_size_, num_batches_, first_, stride_;
  const at::Device device_;
  const std::function<Batch(Batch)> cut_;

  std::mutex mutex_;
  std::condition_variable changed_;  ///< of any of these, which mutex_ guards:
  std::deque<Step> ready_;           ///< made, in order
  int64_t next_ = -1;                ///< first sequence of the step to make next; -1: none is wanted
  int64_t expected_ = -1;            ///< first sequence of the step that ready_ gives next; -1: none
  int64_t jumps_ = 0;                ///< times that next_ was set: a step that was begun before is not wanted
  bool stop_ = false;

  std::thread thread_;  ///< touched by the caller only; last, as it uses all of the above
};

}  // namespace lighthouse

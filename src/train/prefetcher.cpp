#include "train/prefetcher.h"

#include <utility>

#include "train/background_thread.h"

namespace lighthouse {
namespace {

constexpr size_t kDepth = 2;  // steps made ahead

}  // namespace

BatchPrefetcher::BatchPrefetcher(const SequenceLoader& loader, int64_t batch_size, int64_t num_batches,
                                 at::Device device, int64_t first, int64_t stride, std::function<Batch(Batch)> cut)
    : loader_(loader),
      batch_size_(batch_size),
      num_batches_(num_batches),
      first_(first),
      stride_(stride),
      device_(device),
      cut_(std::move(cut)) {}

BatchPrefetcher::~BatchPrefetcher() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::vector<Batch> BatchPrefetcher::take(int64_t first_sequence) {
  if (!thread_.joinable()) thread_ = start_background_thread([this] { run(); });
  const Step step = next_step(first_sequence);
  if (step.error) std::rethrow_exception(step.error);
  std::vector<Batch> batches;
  for (const Batch& batch : step.batches) batches.push_back(to_device(batch, device_));
  return batches;
}

BatchPrefetcher::Step BatchPrefetcher::next_step(int64_t first_sequence) {
  std::unique_lock lock(mutex_);
  if (expected_ != first_sequence) {
    ready_.clear();
    next_ = first_sequence;
    ++jumps_;
    changed_.notify_all();
  }
  changed_.wait(lock, [&] { return !ready_.empty(); });
  Step step = std::move(ready_.front());
  ready_.pop_front();
  expected_ = step.error ? -1 : first_sequence + sequences_per_step();
  changed_.notify_all();
  return step;
}

void BatchPrefetcher::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [&] { return stop_ || (next_ >= 0 && ready_.size() < kDepth); });
    if (stop_) return;
    const int64_t first_sequence = next_;
    const int64_t jump = jumps_;
    next_ += sequences_per_step();
    lock.unlock();
    Step step = make_step(first_sequence);
    lock.lock();
    if (jump != jumps_) continue;  // the caller went elsewhere meanwhile
    if (step.error) next_ = -1;    // nothing more until the caller has seen it
    ready_.push_back(std::move(step));
    changed_.notify_all();
  }
}

BatchPrefetcher::Step BatchPrefetcher::make_step(int64_t first_sequence) const {
  Step step;
  try {
    for (int64_t batch = first_; batch < num_batches_; batch += stride_) {
      int64_t index = first_sequence + batch * batch_size_;
      std::vector<Sequence> sequences;
      for (int64_t i = 0; i < batch_size_; ++i) sequences.push_back(loader_.training_sequence(index++));
      Batch whole = make_host_batch(sequences, /*pinned=*/device_.is_cuda());
      step.batches.push_back(cut_ ? cut_(std::move(whole)) : std::move(whole));
    }
  } catch (...) {
    step.batches.clear();
    step.error = std::current_exception();
  }
  return step;
}

}  // namespace lighthouse

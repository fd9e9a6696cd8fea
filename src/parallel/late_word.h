// A word of what takes long.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace lighthouse {

/// Calls `say` on a thread of its own when it has lived for `after`; else never.
class LateWord {
 public:
  LateWord(std::chrono::milliseconds after, const std::function<void()>& say) {
    if (say) thread_ = std::thread([this, after, say] { wait(after, say); });
  }
  ~LateWord() {
    {
      const std::lock_guard guard(mutex_);
      done_ = true;
    }
    changed_.notify_one();
    if (thread_.joinable()) thread_.join();
  }
  LateWord(const LateWord&) = delete;
  LateWord& operator=(const LateWord&) = delete;

 private:
  void wait(std::chrono::milliseconds after, const std::function<void()>& say) {
    std::unique_lock lock(mutex_);
    if (!changed_.wait_for(lock, after, [this] { return done_; })) say();
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool done_ = false;
  std::thread thread_;
};

}  // namespace lighthouse

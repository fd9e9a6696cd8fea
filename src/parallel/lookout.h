// Whether collectives on a GPU end. The host does not wait for them: it waits for a copy that comes after, for ever
// where another rank is lost.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

namespace c10d {
class Work;
}

namespace lighthouse {

class Watch;

/// A thread follows the collectives of this rank in their order. One that does not end within the timeout, or for which
/// a rank is waited that Watch says is lost, is a failure: all communicators are aborted, which lets the host go on,
/// and check says why.
class Lookout {
 public:
  /// `watch` outlives it. `device`: whose collectives these are. `timeout`: of one, from the end of the one before.
  Lookout(const Watch& watch, c10::Device device, std::chrono::milliseconds timeout);
  Lookout(const Lookout&) = delete;
  Lookout& operator=(const Lookout&) = delete;
  ~Lookout();

  /// `abort` ends what waits on the device; called at most once, on the thread, after a failure.
  void on_failure(std::function<void()> abort);
  void follow(c10::intrusive_ptr<c10d::Work> work, const std::string& what);
  /// Throws RankFailure after a failure: what came from a collective since is not to be used.
  void check() const;

 private:
  struct Followed {
    c10::intrusive_ptr<c10d::Work> work;
    std::string what;
  };
  using Clock = std::chrono::steady_clock;

  void run();
  void drop_ended();
  void fail(const std::string& failure);
  bool wait_for_next_look();

  const Watch& watch_;
  c10::Device device_;
  std::chrono::milliseconds timeout_;
  mutable std::mutex mutex_;  ///< of what follows
  std::condition_variable changed_;
  std::deque<Followed> followed_;
  Clock::time_point first_since_;  ///< since when the first of them is the first
  std::vector<std::function<void()>> aborts_;
  std::string failure_;
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace lighthouse

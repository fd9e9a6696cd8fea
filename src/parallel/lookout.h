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
#include <optional>
#include <string>
#include <thread>
#include <vector>

namespace c10d {
class Work;
}

namespace lighthouse {

class Watch;

/// Says a failure, on any thread.
using SayFailure = std::function<void(const std::string& failure)>;

struct LookoutOptions {
  std::chrono::milliseconds timeout;        ///< of a collective, from the end of the one before
  std::chrono::milliseconds grace{3000};    ///< for the host to take a failure
  std::chrono::milliseconds ending{30000};  ///< and then, where there is `say`
  /// Speaks for a host that does not come to take it; the process ends then. Empty: it is waited for.
  SayFailure say{};
};

/// Follows the collectives of this rank in their order. One that does not end within the timeout, or for which a rank
/// is waited that Watch says is lost, is a failure: all communicators are aborted, which lets the host go on, and check
/// says why. The device and its library may let neither the host nor who asks or aborts go on: then the failure is
/// said within `grace` all the same.
class Lookout {
 public:
  /// `watch` outlives it. `device`: whose collectives these are.
  Lookout(const Watch& watch, c10::Device device, LookoutOptions options);
  Lookout(const Lookout&) = delete;
  Lookout& operator=(const Lookout&) = delete;
  ~Lookout();

  /// `abort` ends what waits on the device; called at most once, on a thread of its own, after a failure.
  void on_failure(std::function<void()> abort);
  /// `work` of `what`, without its tensors (backend.h), which would live until it is seen to have ended.
  void follow(c10::intrusive_ptr<c10d::Work> work, const std::string& what);
  /// Throws RankFailure after a failure: what came from a collective since is not to be used.
  void check() const;
  /// Whether the failure has been said.
  bool has_said() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Followed {
    c10::intrusive_ptr<c10d::Work> work;
    std::string what;
  };
  /// Of the first collective that has not ended, as the thread that judges knows it.
  struct First {
    std::string what;
    int64_t number;  ///< of those that have ended before it
    std::chrono::milliseconds age;
    std::string error;  ///< it has failed because of that
  };

  void look();
  void judge();
  bool has_ended(const Followed& first);
  std::optional<First> first() const;
  bool is_time(std::chrono::milliseconds pause);
  void fail(const std::string& what, const std::string& why);
  void end_call();
  void say();
  template <typename Condition>
  bool wait_for(std::chrono::milliseconds limit, const Condition& condition);

  const Watch& watch_;
  c10::Device device_;
  LookoutOptions options_;
  mutable std::mutex mutex_;  ///< of what follows
  mutable std::condition_variable changed_;
  std::deque<Followed> followed_;
  int64_t num_ended_ = 0;
  Clock::time_point first_since_;  ///< since when the first of them is the first
  std::vector<std::function<void()>> aborts_;
  std::string error_, failure_;
  mutable bool taken_ = false;
  bool stopped_ = false, said_ = false;
  int num_calling_ = 0;  ///< threads that may be in the device's library
  std::thread looks_, aborting_, judge_;
};

}  // namespace lighthouse

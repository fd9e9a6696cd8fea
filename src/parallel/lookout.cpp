#include "parallel/lookout.h"

#include <c10/core/DeviceGuard.h>

#include <torch/csrc/distributed/c10d/Work.hpp>
#include <utility>

#include "lighthouse/check.h"
#include "parallel/group.h"
#include "parallel/watch.h"

namespace lighthouse {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kBetweenLooks{100};
constexpr milliseconds kSuspicion{3000};  // after which it is asked whether all ranks live, which takes two seconds

enum class State { kRuns, kEnded, kFailed };

/// `why` it failed. NCCL's work is not to be asked isSuccess(), which throws.
State state_of(c10d::Work& work, std::string& why) {
  try {
    if (!work.isCompleted()) return State::kRuns;
    const std::exception_ptr exception = work.exception();
    if (exception == nullptr) return State::kEnded;
    std::rethrow_exception(exception);
  } catch (const std::exception& error) {  // of the device, too
    why = error.what();
  }
  return State::kFailed;
}

}  // namespace

Lookout::Lookout(const Watch& watch, c10::Device device, milliseconds timeout)
    : watch_(watch), device_(device), timeout_(timeout), thread_([this] { run(); }) {}

Lookout::~Lookout() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Lookout::on_failure(std::function<void()> abort) {
  const std::lock_guard lock(mutex_);
  aborts_.push_back(std::move(abort));
}

void Lookout::follow(c10::intrusive_ptr<c10d::Work> work, const std::string& what) {
  const std::lock_guard lock(mutex_);
  if (followed_.empty()) first_since_ = Clock::now();
  followed_.push_back({std::move(work), what});
}

void Lookout::check() const {
  const std::lock_guard lock(mutex_);
  if (!failure_.empty()) throw RankFailure(failure_);
}

bool Lookout::wait_for_next_look() {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, kBetweenLooks, [this] { return stopped_; });
  return !stopped_;
}

void Lookout::run() {
  const c10::OptionalDeviceGuard guard(device_);  // a query would make a context on the first GPU else
  while (wait_for_next_look()) {
    drop_ended();
    Followed first;
    milliseconds age{0};
    {
      const std::lock_guard lock(mutex_);
      if (!failure_.empty()) return;
      if (followed_.empty()) continue;
      first = followed_.front();
      age = std::chrono::duration_cast<milliseconds>(Clock::now() - first_since_);
    }
    const std::string late = detail::concat("'", first.what, "' has not ended for ", age.count(), " ms");
    if (age >= timeout_) {
      fail(failure_text(&watch_, first.what, late));
    } else if (age >= kSuspicion && !watch_.lost().empty()) {
      const std::string lost = watch_.lost();  // where the whole machine stood still, all seem to be lost once
      std::string why;
      const bool runs = state_of(*first.work, why) == State::kRuns;  // still: to look took some seconds
      if (!lost.empty() && runs) fail(failure_text(&watch_, first.what, late));
    }
  }
}

void Lookout::drop_ended() {
  while (true) {
    Followed first;
    {
      const std::lock_guard lock(mutex_);
      if (followed_.empty()) return;
      first = followed_.front();
    }
    std::string why;
    const State state = state_of(*first.work, why);
    if (state == State::kFailed) fail(failure_text(&watch_, first.what, why));
    if (state != State::kEnded) return;
    const std::lock_guard lock(mutex_);
    followed_.pop_front();
    first_since_ = Clock::now();
  }
}

void Lookout::fail(const std::string& failure) {
  std::vector<std::function<void()>> aborts;
  {
    const std::lock_guard lock(mutex_);
    failure_ = failure;
    aborts.swap(aborts_);
    followed_.clear();
  }
  for (const auto& abort : aborts) {
    try {
      abort();
    } catch (const std::exception&) {  // the device is lost as well: the host is told so where it waits
    }
  }
}

}  // namespace lighthouse

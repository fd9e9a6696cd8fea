#include "parallel/lookout.h"

#include <c10/core/DeviceGuard.h>

#include <cstdlib>
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

Lookout::Lookout(const Watch& watch, c10::Device device, LookoutOptions options)
    : watch_(watch), device_(device), options_(std::move(options)), num_calling_(1) {
  looks_ = std::thread([this] { look(); });
  judge_ = std::thread([this] { judge(); });
}

Lookout::~Lookout() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  judge_.join();
  const bool answers = wait_for(options_.grace, [this] { return num_calling_ == 0; });
  if (!answers && !failure_.empty() && options_.say) {
    say();
    std::_Exit(EXIT_FAILURE);
  }
  looks_.join();
  if (aborting_.joinable()) aborting_.join();
}

template <typename Condition>
bool Lookout::wait_for(milliseconds limit, const Condition& condition) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, limit, condition);
}

bool Lookout::is_time(milliseconds pause) {
  return !wait_for(pause, [this] { return stopped_ || !failure_.empty(); });
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
  {
    const std::lock_guard lock(mutex_);
    if (failure_.empty()) return;
    taken_ = true;
  }
  changed_.notify_all();
  throw RankFailure(failure_);
}

bool Lookout::has_said() const {
  const std::lock_guard lock(mutex_);
  return said_;
}

/// A thread that asks the device, which may not answer.
void Lookout::look() {
  {
    const c10::OptionalDeviceGuard guard(device_);  // a query would make a context on the first GPU else
    while (is_time(kBetweenLooks)) {
      while (true) {
        Followed first;
        {
          const std::lock_guard lock(mutex_);
          if (followed_.empty() || !error_.empty()) break;
          first = followed_.front();
        }
        if (!has_ended(first)) break;
      }
    }
  }
  end_call();
}

void Lookout::end_call() {
  {
    const std::lock_guard lock(mutex_);
    --num_calling_;
  }
  changed_.notify_all();
}

bool Lookout::has_ended(const Followed& first) {
  std::string why;
  const State state = state_of(*first.work, why);
  const std::lock_guard lock(mutex_);
  if (state == State::kFailed) error_ = why;
  if (state != State::kEnded || followed_.empty()) return false;
  followed_.pop_front();
  ++num_ended_;
  first_since_ = Clock::now();
  return true;
}

std::optional<Lookout::First> Lookout::first() const {
  const std::lock_guard lock(mutex_);
  if (followed_.empty()) return std::nullopt;
  const auto age = std::chrono::duration_cast<milliseconds>(Clock::now() - first_since_);
  return First{followed_.front().what, num_ended_, age, error_};
}

/// A thread that asks nothing but the clock and Watch.
void Lookout::judge() {
  while (is_time(kBetweenLooks)) {
    const std::optional<First> now = first();
    if (!now) continue;
    const std::string late = detail::concat("'", now->what, "' has not ended for ", now->age.count(), " ms");
    if (!now->error.empty()) {
      fail(now->what, now->error);
    } else if (now->age >= options_.timeout) {
      fail(now->what, late);
    } else if (now->age >= kSuspicion && !watch_.lost().empty()) {
      const std::string lost = watch_.lost();  // where the whole machine stood still, all seem to be lost once
      const std::optional<First> then = first();
      if (!lost.empty() && then && then->number == now->number) fail(now->what, late);
    }
  }
}

void Lookout::fail(const std::string& what, const std::string& why) {
  const std::string failure = failure_text(&watch_, what, why);
  std::vector<std::function<void()>> aborts;
  {
    const std::lock_guard lock(mutex_);
    failure_ = failure;
    aborts.swap(aborts_);
    ++num_calling_;
  }
  changed_.notify_all();
  aborting_ = std::thread([this, aborts = std::move(aborts)] {
    std::vector<std::thread> threads;  // together: one may wait for the device, which another keeps busy
    for (const auto& abort : aborts) {
      threads.emplace_back([&abort] {
        try {
          abort();
        } catch (const std::exception&) {  // the device is lost as well: the host is told so where it waits
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    {
      const std::lock_guard lock(mutex_);
      followed_.clear();
    }
    end_call();
  });
  const auto is_taken = [this] { return taken_ || stopped_; };
  if (wait_for(options_.grace, is_taken) || !options_.say) return;
  say();
  if (!wait_for(options_.ending, is_taken)) std::_Exit(EXIT_FAILURE);
}

void Lookout::say() {
  {
    const std::lock_guard lock(mutex_);
    if (std::exchange(said_, true)) return;
  }
  options_.say(failure_);
}

}  // namespace lighthouse

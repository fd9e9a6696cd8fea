#include "model/part_clock.h"

#include <ATen/DeviceAccelerator.h>

#include <atomic>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

// Atomic, as autograd's threads read what the training thread sets. Acquire and release: who sees a clock sees it
// whole.
std::atomic<PartClock*> running_clock{nullptr};

}  // namespace

const char* part_name(Part part) {
  switch (part) {
    case Part::kAttention:
      return "attention";
    case Part::kMatmul:
      return "matmul";
    case Part::kOther:
      return "other";
    case Part::kOptimizer:
      return "optimizer";
    case Part::kData:
      return "data";
  }
  throw InvalidArgument("part_name: no such part");
}

void enter_part(Part part) {
  PartClock* const clock = running_clock.load(std::memory_order_acquire);
  if (clock != nullptr) clock->enter(part);
}

PartScope::PartScope(Part part) : clock_(running_clock.load(std::memory_order_acquire)), before_(part) {
  if (clock_ == nullptr) return;
  before_ = clock_->parts_.back();
  clock_->enter(part);
}

PartScope::~PartScope() {
  if (clock_ != nullptr && running_clock.load(std::memory_order_acquire) == clock_) clock_->enter(before_);
}

PartClock::~PartClock() {
  PartClock* self = this;
  running_clock.compare_exchange_strong(self, nullptr);
}

void PartClock::start(Part part) {
  parts_.clear();
  times_.clear();
  enter(part);
  PartClock* none = nullptr;
  LIGHTHOUSE_CHECK(running_clock.compare_exchange_strong(none, this),
                   "PartClock: one runs already; a process measures one step at a time");
}

PartSeconds PartClock::stop() {
  PartClock* self = this;
  LIGHTHOUSE_CHECK(running_clock.compare_exchange_strong(self, nullptr), "PartClock: stop() without start()");
  const size_t num_marks = parts_.size();
  mark();  // the end
  if (!device_.is_cpu()) events_[num_marks].synchronize();
  PartSeconds seconds{};
  for (size_t i = 0; i < num_marks; ++i) seconds.at(static_cast<size_t>(parts_[i])) += seconds_between(i, i + 1);
  return seconds;
}

void PartClock::enter(Part part) {
  if (!parts_.empty() && parts_.back() == part) return;
  mark();
  parts_.push_back(part);
}

/// The moment of mark parts_.size().
void PartClock::mark() {
  if (device_.is_cpu()) {
    times_.push_back(Clock::now());
    return;
  }
  // BACKEND_DEFAULT is the flag for events that can be timed.
  if (events_.size() == parts_.size()) events_.emplace_back(device_.type(), c10::EventFlag::BACKEND_DEFAULT);
  events_[parts_.size()].record(at::accelerator::getCurrentStream(device_.index()));
}

double PartClock::seconds_between(size_t begin, size_t end) const {
  if (device_.is_cpu()) return std::chrono::duration<double>(times_[end] - times_[begin]).count();
  return events_[begin].elapsedTime(events_[end]) / 1000;  // milliseconds
}

}  // namespace lighthouse

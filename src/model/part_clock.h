// Where the time of a training step goes, by part of the model.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/Event.h>

#include <array>
#include <chrono>
#include <cstddef>
#include <vector>

namespace lighthouse {

/// Every moment of a measured step belongs to one of these.
enum class Part {
  kAttention,  ///< attention with its selection, gather and scatter
  kMatmul,     ///< projections, feed-forward and output head
  kOther,      ///< norms, rotations, activations, embedding, loss
  kOptimizer,  ///< gradient norm, clipping, update
  kData,       ///< waiting for tokens and bringing them to the device
};
inline constexpr size_t kNumParts = 5;
const char* part_name(Part part);  ///< "attention", "matmul", "other", "optimizer", "data"

class PartClock;

using PartSeconds = std::array<double, kNumParts>;  ///< by Part

/// From here on time goes to `part`. On CUDA: the time of what is launched from here on, on the current stream of the
/// calling thread. Without a running clock this is one load; with one, a recorded event (about a microsecond).
void enter_part(Part part);

/// Until its end time goes to `part`, and then to what it went to before.
class PartScope {
 public:
  explicit PartScope(Part part);
  ~PartScope();
  PartScope(const PartScope&) = delete;
  PartScope& operator=(const PartScope&) = delete;

 private:
  PartClock* clock_;  ///< that runs; null: none
  Part before_;
};

/// A stopwatch for one step at a time. Between start() and stop() it is the one that enter_part() reaches, from
/// whatever thread: backward runs on autograd's. Of the threads that call it, each must have waited for the one before
/// (as backward() does); at most one clock of a process runs at a time.
class PartClock {
 public:
  explicit PartClock(at::Device device) : device_(device) {}
  ~PartClock();
  PartClock(const PartClock&) = delete;
  PartClock& operator=(const PartClock&) = delete;

  /// Begins with `part`. Throws InvalidArgument when a clock runs already.
  void start(Part part);
  /// Seconds by part since start(). On CUDA it waits for what was launched in between.
  PartSeconds stop();

 private:
  friend void enter_part(Part part);
  friend class PartScope;
  using Clock = std::chrono::steady_clock;

  void enter(Part part);
  void mark();
  double seconds_between(size_t begin, size_t end) const;

  // Not guarded: the order of the calls is that of the step (see above).
  at::Device device_;
  std::vector<Part> parts_;               ///< [marks] what began there
  std::vector<Clock::time_point> times_;  ///< [marks] on the CPU
  std::vector<c10::Event> events_;        ///< at least [marks], on other devices; kept from step to step
};

}  // namespace lighthouse

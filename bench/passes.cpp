#include "bench/passes.h"

#include <algorithm>
#include <iterator>
#include <memory>

namespace lighthouse::bench {
namespace {

/// A graph calls every set of inputs once: its addresses are fixed, and a set alone could stay in the cache.
std::vector<Timing> measure_recorded(const std::vector<Contestant*>& contestants, const Device& device,
                                     const TimingLimits& limits) {
  std::vector<std::shared_ptr<Recording>> recordings;
  std::vector<Function> replays;
  for (Contestant* contestant : contestants) {
    const Function both = [contestant] { contestant->forward_and_backward(); };
    recordings.push_back(device.record(std::vector<Function>(contestant->sets().size(), both)));
    if (recordings.back() == nullptr) return std::vector<Timing>(contestants.size());
    replays.emplace_back([recording = recordings.back()] { recording->replay(); });
  }
  std::vector<Timing> timings = measure(replays, limits, device.stopwatch());
  for (size_t i = 0; i < timings.size(); ++i) timings[i] = per_call(timings[i], std::ssize(contestants[i]->sets()));
  return timings;
}

std::optional<MemoryUse> measure_memory(const Contestant& contestant, const Device& device) {
  const std::optional<MemoryInUse> before = device.memory();
  if (!before) return std::nullopt;
  device.reset_peak();
  const Inputs& inputs = contestant.sets().front();
  const at::Tensor out = contestant.output(inputs);
  const int64_t kept = device.memory()->current - before->current - static_cast<int64_t>(out.nbytes());
  Contestant::gradients(inputs, out);
  return MemoryUse{device.memory()->peak - before->current, std::max<int64_t>(kept, 0)};
}

}  // namespace

std::vector<Passes> measure_passes(const std::vector<Contestant*>& contestants, const Device& device,
                                   const TimingLimits& limits, bool in_graph) {
  std::vector<Function> forward;
  std::vector<Function> both;
  for (Contestant* contestant : contestants) {
    forward.emplace_back([contestant] { contestant->forward(); });
    both.emplace_back([contestant] { contestant->forward_and_backward(); });
  }
  const std::vector<Timing> forward_timings = measure(forward, limits, device.stopwatch());
  const std::vector<Timing> both_timings = measure(both, limits, device.stopwatch());
  std::vector<Timing> graph_timings(contestants.size());
  if (in_graph) graph_timings = measure_recorded(contestants, device, limits);
  std::vector<Passes> passes;
  for (size_t i = 0; i < contestants.size(); ++i) {
    passes.push_back({forward_timings[i], both_timings[i], graph_timings[i], measure_memory(*contestants[i], device)});
  }
  return passes;
}

}  // namespace lighthouse::bench

// Processes that are ranks of one world, forked by a test.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "parallel/world.h"

namespace lighthouse::parallel_test {

/// How a rank ended.
struct Outcome {
  int exit_code = -1;  ///< 0: the body returned; 1: it threw; -1: a signal ended it
  int signal = 0;      ///< that signal
  std::string text;    ///< what the body returned, or the message of what it threw
  double seconds = 0;  ///< from the start of all to its end
};

using Body = std::function<std::string(World& world)>;

struct RanksOptions {
  std::chrono::milliseconds timeout{120000};
  std::chrono::milliseconds patience{120000};
  std::chrono::seconds limit{300};  ///< after which ranks that are left are killed
};

/// Forks `size` ranks, each with one thread, that find one another on a free port of this machine. Their tensors are on
/// the test device; if that is CUDA, each rank has a GPU of its own as its test device, and where there are too few the
/// test ends as skipped, there and then: a test of several sizes begins with the smallest. The parent must not ask for
/// the device: test_device() looks for it, on_gpus() does not.
std::vector<Outcome> run_ranks(int64_t size, const Body& body, const RanksOptions& options = {});

/// Whether the test device is CUDA.
bool on_gpus();

/// CUDA devices of this machine.
int num_gpus();

/// The same without a world: `body` of each rank in a process of its own.
std::vector<Outcome> run_processes(int64_t size, const std::function<std::string(int64_t rank)>& body,
                                   std::chrono::seconds limit = std::chrono::seconds(300));

}  // namespace lighthouse::parallel_test

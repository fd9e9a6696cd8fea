// What one case of the attention benchmark comes to.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "bench/cases.h"
#include "bench/timing.h"

namespace lighthouse::bench {

/// Of one forward and backward, by the allocator's count.
struct MemoryUse {
  int64_t extra_bytes;  ///< most in use at once, gradients included, inputs and the output's gradient not
  int64_t kept_bytes;   ///< in use between forward and backward, the output not counted
};

struct Passes {
  Timing forward;        ///< without autograd
  Timing both;           ///< forward and backward
  Timing both_in_graph;  ///< the same, replayed: the device's time without the host's
  std::optional<MemoryUse> memory;

  bool measured() const { return both.repeats > 0; }
};

/// One stage of ours, with the least memory traffic or the arithmetic that it can do with.
struct StageResult {
  std::string name;
  Timing timing;
  double bytes = 0;
  double flop = 0;
};
using StageTimings = std::vector<StageResult>;

struct CaseResult {
  AttentionCase attention_case;
  int64_t gathered_len = 0;
  std::string check;                          ///< passed, skipped (too long) or not asked
  std::string error;                          ///< why the case has no results
  Passes dense, at_gathered_len, lighthouse;  ///< dense is left out beyond max_dense_len
  StageTimings stages;                        ///< in order of execution, backward included
};

}  // namespace lighthouse::bench

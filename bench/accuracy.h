// A case passes before it is timed.
#pragma once

#include "bench/contestant.h"

namespace lighthouse::bench {

/// Compares output and gradients, one KV group after another, with composed_attention in fp64 under the same selection:
/// ours may err at most twice as far as composed_attention does in the dtype of the inputs. Throws std::runtime_error
/// naming tensor, group, error and bound; false, without comparing, where fp64 would take too much memory.
bool check_accuracy(const Contestant& ours, const AttentionCase& attention_case);

}  // namespace lighthouse::bench

// What is timed against what: a causal attention with inputs of its own.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <vector>

#include "bench/cases.h"
#include "bench/device.h"

namespace lighthouse::bench {

/// q, k, v and the gradient of the output: [B, N, H, D] or, for stock attention, [B, H, N, D].
struct Inputs {
  at::Tensor q, k, v, dout;
  at::Tensor gate;  ///< log forget gate fp32 [B, N, H]; undefined unless the scorer is gla

  int64_t num_bytes() const;
};

using Attention = std::function<at::Tensor(const Inputs&)>;

/// Calls take turns through the sets of inputs.
class Contestant {
 public:
  Contestant(std::vector<Inputs> sets, Attention attention);

  const std::vector<Inputs>& sets() const { return sets_; }
  /// Without autograd.
  void forward();
  void forward_and_backward();
  at::Tensor output(const Inputs& inputs) const { return attention_(inputs); }
  /// dq, dk, dv
  static std::vector<at::Tensor> gradients(const Inputs& inputs, const at::Tensor& out, bool keep_graph = false);

 private:
  const Inputs& next();

  std::vector<Inputs> sets_;
  Attention attention_;
  size_t turn_ = 0;
};

AttentionOptions attention_options(const AttentionCase& attention_case, const Inputs& inputs);

Contestant lighthouse_contestant(const BenchOptions& options, const AttentionCase& attention_case,
                                 const Device& device);
/// Dense causal attention over `length` tokens or rows.
Contestant stock_contestant(const BenchOptions& options, int64_t length, const Device& device);

}  // namespace lighthouse::bench

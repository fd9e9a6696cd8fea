// Cases and helpers that the tests of the operators share.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <ostream>
#include <string>
#include <vector>

#include "lighthouse/ops.h"
#include "reference/lighthouse.h"
#include "support/same_bits.h"
#include "support/test_device.h"

namespace lighthouse::ops_test {

struct OpsCase {
  std::string name;
  int64_t batch = 1, seq_len = 0, num_heads = 1, num_kv_heads = 1, head_dim = 4;
  SelectionConfig config;
  ScoreConfig score;
  std::vector<int64_t> cu_seqlens;  ///< empty: not packed

  at::OptionalIntArrayRef offsets() const {
    return cu_seqlens.empty() ? at::OptionalIntArrayRef() : at::OptionalIntArrayRef(cu_seqlens);
  }
  reference::Sequence sequence() const { return {seq_len, config, cu_seqlens}; }
};
inline std::ostream& operator<<(std::ostream& out, const OpsCase& test_case) { return out << test_case.name; }

/// topk, num_levels, pooling_factor, tile_topk.
inline SelectionConfig make_config(int64_t topk, int64_t num_levels = 3, int64_t pooling_factor = 4,
                                   int64_t tile_topk = 128) {
  SelectionConfig config;
  config.topk = topk;
  config.num_levels = num_levels;
  config.pooling_factor = pooling_factor;
  config.tile_topk = tile_topk;
  return config;
}

inline ScoreConfig scored_by(Scorer scorer, int64_t dilation = 4) {
  ScoreConfig score;
  score.scorer = scorer;
  score.dilation = dilation;
  return score;
}

/// Small cases: one of everything that the operators distinguish.
std::vector<OpsCase> small_cases();

/// About normal values, the same on every machine.
at::Tensor normal(at::IntArrayRef shape, int64_t seed, at::ScalarType dtype = at::kFloat);

struct Inputs {
  at::Tensor q, k, v, dout;
  at::Tensor gate;  ///< undefined unless the scorer is gla
};
Inputs make_inputs(const OpsCase& test_case, at::ScalarType dtype, int64_t seed = 1);

AttentionOptions options_of(const OpsCase& test_case, const Inputs& inputs);
/// With stock attention in its repeatable form, for tests that compare bits. The CPU's always is.
AttentionOptions repeatable(AttentionOptions options);
at::Tensor selection_of(const OpsCase& test_case, const Inputs& inputs);

/// o, dq, dk, dv.
using Results = std::vector<at::Tensor>;
inline constexpr const char* kResultNames[] = {"o", "dq", "dk", "dv"};

using Attention = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;
Results results_of(const Inputs& inputs, const Attention& attention);
Results results_of(const Inputs& inputs, const AttentionOptions& options);

/// Results of two stock kernels on the same rows: equal bits on the CPU, which has one; on CUDA, where packed rows take
/// another, equal within its roundings.
bool same_attention(const at::Tensor& a, const at::Tensor& b);

/// fp64 of the same values, and back to the test device.
reference::Tensor to_reference(const at::Tensor& x);
at::Tensor from_reference(const reference::Tensor& x);
reference::Selection to_reference_selection(const at::Tensor& selection);

double max_error(const at::Tensor& x, const at::Tensor& exact);

}  // namespace lighthouse::ops_test

// What the tests of the audit share: text without meaning, and a model that looks ahead on purpose.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "audit/runner.h"
#include "model/random.h"

namespace lighthouse {

inline constexpr int64_t kVocab = 31;

inline Sequence random_sequence(int64_t seq_len, uint64_t seed, std::vector<int64_t> cu_seqlens = {}) {
  Sequence sequence;
  const uint64_t stream = random_stream(seed, "sequence");
  for (int64_t i = 0; i <= seq_len; ++i) {
    const auto token = static_cast<int64_t>(random_bits(stream, static_cast<uint64_t>(i)) % kVocab);
    if (i < seq_len) sequence.inputs.push_back(token);
    if (i > 0) sequence.targets.push_back(token);
  }
  sequence.cu_seqlens = std::move(cu_seqlens);
  return sequence;
}

inline std::vector<Sequence> random_text(int64_t num_sequences, int64_t seq_len,
                                         const std::vector<int64_t>& cu_seqlens = {}) {
  std::vector<Sequence> text;
  for (int64_t i = 0; i < num_sequences; ++i) {
    text.push_back(random_sequence(seq_len, static_cast<uint64_t>(i), cu_seqlens));
  }
  return text;
}

/// Output j is token j, and `share` times the token `ahead` places later.
inline RunnerFor looks_ahead(int64_t ahead, double share) {
  return [=](const Sequence& /*original*/) -> Runner {
    return [=](const Sequence& sequence) {
      const at::Tensor tokens = at::tensor(sequence.inputs).to(at::kFloat);
      at::Tensor hidden = tokens.clone();
      hidden.slice(0, 0, tokens.size(0) - ahead).add_(tokens.slice(0, ahead), share);
      return Outputs{hidden.unsqueeze(1), hidden * 2};
    };
  };
}

}  // namespace lighthouse

// Scores that know nothing: the control of experiments about scorers (attention.scorer = Scorer::kRandom).
#pragma once

#include <ATen/core/Tensor.h>

#include <tuple>

namespace lighthouse {

/// (s_qk, s_kq), fp32 [B, H_kv, N] in [0, 1), no gradient, of q [B, N, H, D] and k [B, N, H_kv, D]: a hash of the bits
/// of each token's norms and of its position. So every sequence, layer, head and step has other scores, and what is
/// computed again has the same.
std::tuple<at::Tensor, at::Tensor> random_scores(const at::Tensor& q, const at::Tensor& k);

}  // namespace lighthouse

// Tokens to channels.
#pragma once

#include <ATen/core/Tensor.h>

namespace lighthouse {

/// Rows `tokens` [B, N] of compute_table [vocab, dim], which is the parameter `table` in the compute dtype. The
/// gradient of the table is fp32, without atomics.
at::Tensor embed(const at::Tensor& tokens, const at::Tensor& table, const at::Tensor& compute_table);

}  // namespace lighthouse

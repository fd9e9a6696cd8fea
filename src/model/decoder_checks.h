// What a decoder refuses.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <span>

#include "config/run_config.h"
#include "model/execution.h"

namespace lighthouse {

/// Sizes that do not fit together, by the limits and in the words of the configuration; a dtype or an offload that
/// there is not. All throw InvalidArgument.
void check_decoder(const ModelConfig& model, const AttentionConfig& attention, const Execution& execution);

/// int64 [B, N] on `device`.
void check_token_tensor(const at::Tensor& tokens, const char* name, at::Device device);
/// The same, of the shape of the tokens.
void check_targets(const at::Tensor& targets, const at::Tensor& tokens, at::Device device);
/// Offsets from 0 to row_len of a batch of 1, or none.
void check_documents(std::span<const int64_t> cu_seqlens, const at::Tensor& tokens, int64_t row_len);

}  // namespace lighthouse

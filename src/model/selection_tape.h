// The selections of one pass, so that another pass can be held to them.
#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace lighthouse {

/// By layer: what its Lighthouse attention selected, int32 [B, H_kv, S] as AttentionOptions::selection takes it;
/// undefined for a layer whose attention was dense.
using SelectionTape = std::vector<at::Tensor>;

}  // namespace lighthouse

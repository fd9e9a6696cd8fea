// The residual stream between the parts of the decoder.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace lighthouse {

/// x + update [B, N, dim], not yet added: the norm that reads it next adds in the same pass.
struct Residual {
  at::Tensor x;
  std::optional<at::Tensor> update;
};

}  // namespace lighthouse

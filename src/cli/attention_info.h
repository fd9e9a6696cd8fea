// Which stock attention runs between gather and scatter on this machine.
#pragma once

#include <c10/core/Device.h>

#include <string>
#include <vector>

namespace lighthouse::cli {

/// The kernel that scaled_dot_product_attention takes for a causal call with gradients, by head dimension.
struct StockAttention {
  std::string dtype;                   ///< "bfloat16", ...
  std::vector<std::string> by_kernel;  ///< "cuDNN for head_dim 64, 80, 96, 128", ...
};
std::vector<StockAttention> stock_attention(c10::Device device);

}  // namespace lighthouse::cli

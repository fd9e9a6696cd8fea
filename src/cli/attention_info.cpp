#include "cli/attention_info.h"

#include <ATen/SDPBackend.h>
#include <ATen/ops/_fused_sdp_choice.h>
#include <ATen/ops/zeros.h>

#include <utility>

namespace lighthouse::cli {
namespace {

std::string kernel_name(int64_t choice) {
  switch (static_cast<at::SDPBackend>(choice)) {
    case at::SDPBackend::cudnn_attention:
      return "cuDNN";
    case at::SDPBackend::flash_attention:
      return "FlashAttention";
    case at::SDPBackend::efficient_attention:
      return "memory-efficient attention";
    case at::SDPBackend::math:
      return "matrix products";
    default:
      return "another kernel";
  }
}

std::string kernel_for(c10::Device device, at::ScalarType dtype, int64_t head_dim) {
  const at::Tensor x =
      at::zeros({1, 1, 128, head_dim}, at::TensorOptions().device(device).dtype(dtype)).requires_grad_();
  return kernel_name(at::_fused_sdp_choice(x, x, x, /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, /*is_causal=*/true));
}

}  // namespace

std::vector<StockAttention> stock_attention(c10::Device device) {
  const std::pair<at::ScalarType, const char*> dtypes[] = {
      {at::kBFloat16, "bfloat16"}, {at::kHalf, "float16"}, {at::kFloat, "float32"}};
  std::vector<StockAttention> all;
  for (const auto& [dtype, name] : dtypes) {
    StockAttention attention{name, {}};
    std::string kernel;
    for (const int64_t head_dim : {64, 80, 96, 128, 192, 256}) {
      const std::string next = kernel_for(device, dtype, head_dim);
      if (next == kernel) {
        attention.by_kernel.back() += ", " + std::to_string(head_dim);
      } else {
        attention.by_kernel.push_back(next + " for head_dim " + std::to_string(head_dim));
      }
      kernel = next;
    }
    all.push_back(std::move(attention));
  }
  return all;
}

}  // namespace lighthouse::cli

#include "model/compute_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty.h>

namespace lighthouse {

ComputeWeights::ComputeWeights(const Matrices& matrices, at::ScalarType dtype, at::Device device)
    : options_(at::TensorOptions(dtype).device(device)) {
  for (const LayerMatrices& layer : matrices.layers) {
    layers.push_back({add(layer.qkv_proj), add(layer.o_proj), add(layer.gate_up_proj), add(layer.down_proj)});
  }
  embed_tokens = add(matrices.embed_tokens);
  lm_head = matrices.lm_head.is_same(matrices.embed_tokens) ? embed_tokens : add(matrices.lm_head);
}

at::Tensor ComputeWeights::add(const at::Tensor& source) {
  if (source.dtype() == options_.dtype() && source.device().type() == options_.device().type()) return source;
  sources_.push_back(source);
  targets_.push_back(at::empty(source.sizes(), options_));
  return targets_.back();
}

at::Tensor ComputeWeights::copy_of(const at::Tensor& value) const {
  for (size_t i = 0; i < sources_.size(); ++i) {
    if (!value.is_alias_of(sources_[i])) continue;
    const int64_t begin = value.storage_offset() - sources_[i].storage_offset();
    return targets_[i].view({-1}).slice(0, begin, begin + value.numel()).view(value.sizes());
  }
  return {};
}

void ComputeWeights::refresh() {
  int64_t version = 0;  // each only grows, and so does their sum
  for (const at::Tensor& source : sources_)
    version += source.unsafeGetTensorImpl()->version_counter().current_version();
  if (version == copied_version_ || sources_.empty()) return;
  const at::NoGradGuard no_grad;
  at::_foreach_copy_(targets_, sources_);
  copied_version_ = version;
}

}  // namespace lighthouse

#include "model/compute_weights.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/_foreach_copy.h>
#include <ATen/ops/empty_like.h>

namespace lighthouse {

ComputeWeights::ComputeWeights(const Weights& weights, at::ScalarType dtype) : dtype_(dtype) {
  for (const LayerWeights& layer : weights.layers) {
    layers.push_back({add(layer.qkv_proj), add(layer.o_proj), add(layer.gate_up_proj), add(layer.down_proj)});
  }
  embed_tokens = add(weights.embed_tokens);
  lm_head = weights.lm_head.is_same(weights.embed_tokens) ? embed_tokens : add(weights.lm_head);
}

at::Tensor ComputeWeights::add(const at::Tensor& source) {
  if (source.scalar_type() == dtype_) return source.detach();
  sources_.push_back(source.detach());
  targets_.push_back(at::empty_like(source, source.options().dtype(dtype_).requires_grad(false)));
  return targets_.back();
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

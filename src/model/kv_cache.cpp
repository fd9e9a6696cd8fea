#include "model/kv_cache.h"

#include <ATen/ops/empty.h>

#include <algorithm>

namespace lighthouse {
namespace {

/// `buffer` with room for `needed` tokens, the first `used` of them kept.
at::Tensor with_room(const at::Tensor& buffer, const at::Tensor& like, int64_t used, int64_t needed) {
  if (buffer.defined() && buffer.size(2) >= needed) return buffer;
  const int64_t capacity = std::max(needed, buffer.defined() ? 2 * buffer.size(2) : int64_t{0});
  at::Tensor larger = at::empty({like.size(0), like.size(1), capacity, like.size(3)}, like.options());
  if (used > 0) larger.narrow(2, 0, used).copy_(buffer.narrow(2, 0, used));
  return larger;
}

}  // namespace

int64_t KvCache::batch() const { return layers_.empty() ? 0 : layers_.front().k.size(0); }

KvCache::KeysValues KvCache::append(size_t layer, const at::Tensor& k, const at::Tensor& v) {
  if (layers_.size() <= layer) layers_.resize(layer + 1);
  KeysValues& buffers = layers_[layer];
  const int64_t num_tokens = k.size(2);
  const int64_t needed = length_ + num_tokens;
  buffers.k = with_room(buffers.k, k, length_, needed);
  buffers.v = with_room(buffers.v, v, length_, needed);
  buffers.k.narrow(2, length_, num_tokens).copy_(k);
  buffers.v.narrow(2, length_, num_tokens).copy_(v);
  return {buffers.k.narrow(2, 0, needed), buffers.v.narrow(2, 0, needed)};
}

}  // namespace lighthouse

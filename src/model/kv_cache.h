// Keys and values of the tokens that a decoder has seen, for Decoder::decode.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

namespace lighthouse {

/// Belongs to one decoder and one batch of sequences. Empty to begin with; grows by doubling.
class KvCache {
 public:
  /// All keys and values of a layer, [B, H_kv, length() + n, D]: views that the next append may overwrite beyond
  /// length().
  struct KeysValues {
    at::Tensor k, v;
  };

  int64_t length() const { return length_; }  ///< tokens seen
  int64_t batch() const;                      ///< 0 while empty

  /// Writes k and v [B, H_kv, n, D] of a layer behind those of the first length() tokens.
  KeysValues append(size_t layer, const at::Tensor& k, const at::Tensor& v);
  /// Counts n tokens as seen, once every layer has appended them.
  void advance(int64_t num_tokens) { length_ += num_tokens; }

 private:
  std::vector<KeysValues> layers_;  ///< [B, H_kv, capacity, D]
  int64_t length_ = 0;
};

}  // namespace lighthouse

// What stock attention takes of heads [B, H, S, D], as rules on numbers. Knows no torch, so that what a GPU would
// refuse is tested without one.
#pragma once

#include <cstdint>

namespace lighthouse::ops {

/// Kernels on CUDA load 16 bytes at once: heads, and every row of them, start at multiples of that.
inline constexpr int64_t kLoadBytes = 16;

/// Zero channels that make a row a multiple of 16 bytes. Without them PyTorch falls back to plain matrix products, with
/// all S^2 scores in memory, for fp32 and for D > 256.
constexpr int64_t missing_channels(int64_t head_dim, int64_t element_size) {
  const int64_t elements = kLoadBytes / element_size;
  return (elements - head_dim % elements) % elements;
}

/// Whether every row starts at a multiple of 16 bytes if the first one does: by all `strides` (in elements) but the
/// last, those of dimensions of size 1 too. The memory-efficient kernel looks at the stride of a single head and says
/// "no kernel found to launch".
template <typename Strides>
constexpr bool rows_start_aligned(const Strides& strides, int64_t element_size) {
  const int64_t elements = kLoadBytes / element_size;
  for (size_t i = 0; i + 1 < strides.size(); ++i) {
    if (strides[i] % elements != 0) return false;
  }
  return true;
}

/// Whether query heads may share keys and values in the call (enable_gqa). Else these are repeated for each head:
///   on CUDA only cuDNN and FlashAttention-2 (16-bit types, D <= 256) take groups, the memory-efficient kernel does
///   not; on the CPU the backward sums a group in the type of the input, where the repeated heads' gradients are summed
///   in fp32. With 16-bit types and 32 heads in a group that is a third of the error in dK and dV.
constexpr bool may_share_keys(bool is_cuda, bool is_16_bit, int64_t head_dim) {
  return is_cuda ? is_16_bit && head_dim <= 256 : !is_16_bit;
}

}  // namespace lighthouse::ops

// What the calls demand of their arguments, and how they say so: InvalidArgument with a message that names the
// operation, the value and what would do. `operation` is the name that the user called.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "calls/tensor.h"
#include "lighthouse/check.h"

namespace lighthouse::calls {

struct HeadSizes {
  int64_t batch, num_heads, num_kv_heads, head_dim, seq_len;
};

/// Heads by token: sizes, one dtype of the four, one device, contiguous channels.
HeadSizes check_tokens(const char* operation, const Heads& x);

/// The same by row; seq_len is S.
HeadSizes check_rows(const char* operation, const Heads& x);

/// One of the tensors above: rank 4, no size zero, a known dtype, contiguous channels.
void check_heads(const char* operation, const char* name, const TensorView& x);

/// On the CPU, or on CUDA where there are kernels for it.
void check_device(const char* operation, const char* name, const TensorView& x);

/// Every KV head serves as many query heads.
void check_group(const char* operation, int64_t num_heads, int64_t num_kv_heads);

/// Shape, and the device of `like`.
void check_shape(const char* operation, const char* name, const TensorView& x, std::span<const int64_t> shape,
                 const char* meaning, const TensorView& like);

/// A tensor of another kind: `element` is required, and named in the message with the cast that would do.
void check_element(const char* operation, const char* name, const TensorView& x, Element element);

/// s_qk and s_kq, fp32 [B, H_kv, N].
void check_scores(const char* operation, const TensorView& s_qk, const TensorView& s_kq);

/// int32 and contiguous.
void check_index_array(const char* operation, const char* name, const TensorView& array,
                       std::initializer_list<int64_t> shape, const char* meaning, const TensorView& like);

}  // namespace lighthouse::calls

// What the operators demand of their arguments, and how they say so: a ValueError with a message that names the
// operation, the value and what would do. `operation` is the name that the user called.
#pragma once

#include <cstdint>
#include <initializer_list>

#include "lighthouse/check.h"
#include "lighthouse/dtype.h"
#include "lighthouse/geometry.h"
#include "ops/tensor.h"

namespace lighthouse::ops {

/// Sizes of one call. They may be symbolic in a traced graph, but for N: the lengths of pyramid, tiles and gathered
/// sequence follow from its value, so a graph holds for one N.
struct Sizes {
  Size batch, num_heads, num_kv_heads, head_dim;
  int64_t seq_len;
};

/// q [B, N, H, D], k and v [B, N, H_kv, D]: sizes, one dtype of the four, one device, contiguous channels.
Sizes check_qkv(const char* operation, const Tensor& q, const Tensor& k, const Tensor& v);

/// The same for [B, H, S, D] and [B, H_kv, S, D] twice; seq_len is S.
Sizes check_rows(const char* operation, const Tensor& q_rows, const Tensor& k_rows, const Tensor& v_rows);

/// One of the tensors above: rank 4, no size zero, a known dtype, contiguous channels.
void check_heads(const char* operation, const char* name, const Tensor& x);

/// Shape, and the device of `like`.
void check_shape(const char* operation, const char* name, const Tensor& x, SizesView shape, const char* meaning,
                 const Tensor& like);

/// A tensor of another kind: `dtype` is required, and named in the message with the cast that would do.
void check_dtype(const char* operation, const char* name, const Tensor& x, ScalarType dtype);

/// s_qk and s_kq, fp32 [B, H_kv, N].
void check_scores(const char* operation, const Tensor& s_qk, const Tensor& s_kq);

/// make_plan, its errors restated. Packed documents need B = 1.
SequencePlan checked_plan(const char* operation, const SelectionConfig& config, int64_t seq_len, const Size& batch,
                          OptionalIntegers cu_seqlens);

/// Of a checked tensor.
DType stage_dtype(const Tensor& x);

/// N of a tensor; in a traced graph it becomes a constant.
int64_t fixed_size(const Tensor& x, int64_t dimension);

/// Calls body() and restates InvalidArgument: no type of ours crosses the dispatcher.
template <typename Body>
auto restate_errors(const Body& body) {
  try {
    return body();
  } catch (const InvalidArgument& error) {
    LIGHTHOUSE_CHECK_VALUE(false, error.what());
  }
}

}  // namespace lighthouse::ops

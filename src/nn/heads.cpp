#include "nn/heads.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include "nn/arguments.h"
#include "nn/kernel_call.h"
#include "nn/kernels.h"

namespace lighthouse {
namespace {

void check_rotation(const char* function, const Rotation& rotation, const at::Tensor& heads) {
  const int64_t count = heads.size(1) * (heads.size(3) / 2);
  nn::check_vector(function, "cos", rotation.cos, count, at::kFloat, heads);
  nn::check_vector(function, "sin", rotation.sin, count, at::kFloat, heads);
}

void check_heads(const char* function, const char* name, const at::Tensor& heads) {
  LIGHTHOUSE_CHECK(heads.dim() == 4 && heads.size(3) % 2 == 0, function, ": ", name, " ", heads.sizes(),
                   " must be [B, N, H, D] with an even D");
  nn::check_activation(function, name, heads);
}

/// Whether the kernels take these heads: halves that are whole vectors, rows that start at multiples of 16 bytes.
bool has_kernel(const at::Tensor& heads, const Rotation& rotation) {
  if (!nn::has_kernel(heads, heads.size(3) / 2, {&heads, &rotation.cos, &rotation.sin}) || heads.stride(3) != 1) {
    return false;
  }
  for (int64_t dimension = 0; dimension < 3; ++dimension) {
    if (heads.stride(dimension) * heads.element_size() % 16 != 0) return false;
  }
  return true;
}

ConstView view_of(const at::Tensor& heads) {
  return {heads.const_data_ptr(), heads.stride(0), heads.stride(1), heads.stride(2)};
}

}  // namespace

at::Tensor rotated(const at::Tensor& x, const Rotation& rotation) {
  const auto& [cos, sin] = rotation;
  const int64_t half = x.size(3) / 2;
  const at::Tensor first = x.narrow(3, 0, half);
  const at::Tensor second = x.narrow(3, half, half);
  return at::cat({first * cos - second * sin, second * cos + first * sin}, 3);
}

void rotate_heads_(const at::Tensor& heads, int64_t num_rotated, const Rotation& rotation) {
  check_heads("rotate_heads_", "heads", heads);
  nn::check_contiguous("rotate_heads_", "heads", heads);
  LIGHTHOUSE_CHECK(num_rotated >= 0 && num_rotated <= heads.size(2), "rotate_heads_: num_rotated ", num_rotated, " of ",
                   heads.size(2), " heads");
  check_rotation("rotate_heads_", rotation, heads);
  if (num_rotated == 0) return;
  const auto& [cos, sin] = rotation;
  if constexpr (nn::kWithCuda) {
    if (has_kernel(heads, rotation)) {
      const nn::KernelCall call(heads);
      nn::rotate_heads(
          {heads.mutable_data_ptr(), cos.const_data_ptr<float>(), sin.const_data_ptr<float>(), nn::kernel_dtype(heads),
           heads.size(0), heads.size(1), heads.size(2), num_rotated, heads.size(3)},
          call.stream());
      return;
    }
  }
  const int64_t half = heads.size(3) / 2;
  at::Tensor first_heads = heads.narrow(2, 0, num_rotated);
  first_heads.copy_(rotated(first_heads, {cos.view({-1, 1, half}), sin.view({-1, 1, half})}));
}

at::Tensor pack_head_gradients(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                               const Rotation& rotation, const at::Tensor& inverse_rms) {
  check_heads("pack_head_gradients", "dq", dq);
  const int64_t batch = dq.size(0);
  const int64_t seq_len = dq.size(1);
  const int64_t head_dim = dq.size(3);
  for (const at::Tensor* x : {&dk, &dv}) {
    LIGHTHOUSE_CHECK(x->dim() == 4 && x->sizes() == dk.sizes() && x->size(0) == batch && x->size(1) == seq_len &&
                         x->size(3) == head_dim && x->scalar_type() == dq.scalar_type() && x->device() == dq.device(),
                     "pack_head_gradients: dk ", dk.sizes(), " and dv ", dv.sizes(),
                     " must both be [B, N, H_kv, D], of the dtype and device of dq ", dq.sizes());
  }
  const auto& [cos, sin] = rotation;
  LIGHTHOUSE_CHECK(cos.defined() == sin.defined(), "pack_head_gradients: give both cos and sin, or neither");
  if (rotation.defined()) check_rotation("pack_head_gradients", rotation, dq);
  nn::check_vector("pack_head_gradients", "inverse_rms", inverse_rms, batch * seq_len, nn::sum_dtype(dq), dq);

  const int64_t num_heads = dq.size(2) + dk.size(2) + dv.size(2);
  at::Tensor packed = at::empty({batch, seq_len, num_heads, head_dim}, dq.options());
  if constexpr (nn::kWithCuda) {
    if (has_kernel(dq, rotation) && has_kernel(dk, rotation) && has_kernel(dv, rotation)) {
      const nn::KernelCall call(dq);
      nn::pack_head_gradients(
          {view_of(dq), view_of(dk), view_of(dv), static_cast<const float*>(nn::data_or_null(cos)),
           static_cast<const float*>(nn::data_or_null(sin)), inverse_rms.const_data_ptr<float>(),
           packed.mutable_data_ptr(), nn::kernel_dtype(dq), batch, seq_len, dq.size(2), dk.size(2), head_dim},
          call.stream());
      return packed.view({batch * seq_len, num_heads * head_dim});
    }
  }
  const at::Tensor scale = inverse_rms.view({batch, seq_len, 1, 1});
  int64_t head = 0;
  for (const at::Tensor* x : {&dq, &dk, &dv}) {
    const bool turn = rotation.defined() && x != &dv;
    const at::Tensor back =
        turn ? rotated(*x, {cos.view({seq_len, 1, head_dim / 2}), -sin.view({seq_len, 1, head_dim / 2})}) : *x;
    packed.narrow(2, head, x->size(2)).copy_(back * scale);
    head += x->size(2);
  }
  return packed.view({batch * seq_len, num_heads * head_dim});
}

}  // namespace lighthouse

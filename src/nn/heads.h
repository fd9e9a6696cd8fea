// Rotary positions on the heads of one matrix product, and the way back. No autograd: for use inside autograd
// functions.
//
// D is even. T is fp32, fp64 or bf16; computed in fp32 (fp64 where T is), rounded once. The kernels on CUDA take
// D % 16 == 0 with rows that start at multiples of 16 bytes; all else runs the operators of ATen.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "nn/rotation.h"

namespace lighthouse {

/// x [B, N, heads, D] turned, in fp32 (fp64 where T is), by operators of ATen: the formula itself, and differentiable.
at::Tensor rotated(const at::Tensor& x, const Rotation& rotation);

/// Turns the first num_rotated heads of every token of heads [B, N, H_total, D] T, contiguous, in place. With packed q,
/// k and v heads num_rotated is H + H_kv.
void rotate_heads_(const at::Tensor& heads, int64_t num_rotated, const Rotation& rotation);

/// The gradient of the packed heads before their rotation, every row times its inverse_rms [B * N]:
/// [B * N, (H + 2 * H_kv) * D] T, the heads of dq, dk and dv behind one another. dq [B, N, H, D], dk and dv
/// [B, N, H_kv, D]: any strides with contiguous channels. dq and dk are turned back, where `rotation` is defined.
at::Tensor pack_head_gradients(const at::Tensor& dq, const at::Tensor& dk, const at::Tensor& dv,
                               const Rotation& rotation, const at::Tensor& inverse_rms);

}  // namespace lighthouse

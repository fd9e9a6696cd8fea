// SwiGLU on the result of one matrix product for gate and up. No autograd: for use inside autograd functions.
//
// T is fp32, fp64 or bf16, contiguous; computed in fp32 (fp64 where T is), rounded once. The kernels on CUDA take
// F % 8 == 0; all else runs the operators of ATen.
#pragma once

#include <ATen/core/Tensor.h>

namespace lighthouse {

/// silu(gate) * up, [.., F] T, of gate_up [.., 2F]: gate, then up.
at::Tensor swiglu(const at::Tensor& gate_up);

/// In place, one pass. On entry `grad` [.., F] is the gradient of swiglu(gate_up). On return `grad` holds
/// swiglu(gate_up), and gate_up its own gradient with every row times its inverse_rms [rows] (fp32; fp64 where T is).
void swiglu_backward_(const at::Tensor& gate_up, const at::Tensor& grad, const at::Tensor& inverse_rms);

}  // namespace lighthouse

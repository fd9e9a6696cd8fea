// RMS norm of the residual stream, with the addition before it; and its gradient, split so that no pass over the
// activations is needed for the gradient of its weight. No autograd: for use inside autograd functions.
//
// Rows are the last dimension, C channels, contiguous. T is fp32, fp64 or bf16; A is fp32, or fp64 where T is.
// Everything is computed in A and rounded to T once. Weights are fp32, or fp64 where T is fp64. On CUDA fp32 and bf16
// have kernels for C % 8 == 0, at any C; what they do not take runs the operators of ATen, as on the CPU. All
// results are the same bits in every run.
#pragma once

#include <ATen/core/Tensor.h>

namespace lighthouse {

struct Normed {
  at::Tensor sum;          ///< [.., C] T
  at::Tensor normed;       ///< [.., C] T
  at::Tensor inverse_rms;  ///< [rows] A
};

/// For x and update [.., C] T and weight [C]:
///   sum = round(x + update), or x itself, not a copy, where update is undefined
///   inverse_rms = 1 / sqrt(mean over C of sum^2 + eps)
///   normed = round(sum * inverse_rms * weight)
Normed add_rms_norm(const at::Tensor& x, const at::Tensor& update, const at::Tensor& weight, double eps);

/// The gradient of x, given scaled_grad: inverse_rms times the gradient of `normed`, T, with as many rows as x [.., C].
///   dx = residual_grad + weight * scaled_grad - x * inverse_rms^2 * mean over C of (weight * scaled_grad * x)
/// x is what was normed (`sum`); residual_grad, T of the same rows, may be undefined. Writes dx over scaled_grad, which
/// must be contiguous, and returns it in the shape of x.
at::Tensor rms_norm_backward_(const at::Tensor& scaled_grad, const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& inverse_rms, const at::Tensor& residual_grad);

/// What remains when y = normed matrix^T, and dmatrix [out, C] A is dy^T x with rows of dy times inverse_rms, that is,
/// without the norm's weight. On return dmatrix is the gradient of matrix [out, C] (any dtype), dmatrix * norm_weight;
/// returns the gradient of norm_weight, [C] A: sum over out of matrix * dmatrix as it was. Two kernels.
at::Tensor split_norm_gradient_(const at::Tensor& dmatrix, const at::Tensor& matrix, const at::Tensor& norm_weight);

}  // namespace lighthouse

// The matrix products of the decoder, all between activations [.., in] and matrices [out, in].
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace lighthouse {

/// x [.., in] as [rows, in]: a view where its strides allow one.
at::Tensor as_rows(const at::Tensor& x);

/// x [.., in] times matrix [out, in] transposed, plus bias [out]: [.., out], in the dtype of x and matrix.
at::Tensor project(const at::Tensor& x, const at::Tensor& matrix, const std::optional<at::Tensor>& bias = std::nullopt);
/// The gradient of x in project: grad [.., out] times matrix [out, in].
at::Tensor project_back(const at::Tensor& grad, const at::Tensor& matrix);
/// The same two, without bias, of rows [rows, ..] and written to `out`.
void project_to(at::Tensor& out, const at::Tensor& x, const at::Tensor& matrix);
void project_back_to(at::Tensor& out, const at::Tensor& grad, const at::Tensor& matrix);
/// The gradient of the matrix in project: grad [.., out] transposed times x [.., in], fp32, or fp64 where they are. On
/// CUDA products of bf16 leave their fp32 sums unrounded.
at::Tensor matrix_gradient(const at::Tensor& grad, const at::Tensor& x);
/// sum += matrix_gradient(grad, x).
void add_matrix_gradient(at::Tensor& sum, const at::Tensor& grad, const at::Tensor& x);

}  // namespace lighthouse

#include "nn/rms_norm.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/rsqrt.h>

#include "nn/arguments.h"
#include "nn/kernel_call.h"
#include "nn/kernels.h"

namespace lighthouse {

Normed add_rms_norm(const at::Tensor& x, const at::Tensor& update, const at::Tensor& weight, double eps) {
  nn::check_activation("add_rms_norm", "x", x);
  nn::check_contiguous("add_rms_norm", "x", x);
  nn::check_weight("add_rms_norm", "weight", weight, x.size(-1), x);
  if (update.defined()) {
    nn::check_like("add_rms_norm", "update", update, x);
    nn::check_contiguous("add_rms_norm", "update", update);
  }
  Normed result;
  if constexpr (nn::kWithCuda) {
    if (nn::has_kernel(x, x.size(-1), {&x, &update, &weight})) {
      result.sum = update.defined() ? at::empty_like(x) : x;
      result.normed = at::empty_like(x);
      result.inverse_rms = at::empty({nn::num_rows(x)}, weight.options());
      const nn::KernelCall call(x);
      nn::add_rms_norm({x.const_data_ptr(), nn::data_or_null(update), weight.const_data_ptr<float>(),
                        update.defined() ? result.sum.mutable_data_ptr() : nullptr, result.normed.mutable_data_ptr(),
                        result.inverse_rms.mutable_data_ptr<float>(), nn::kernel_dtype(x), nn::num_rows(x), x.size(-1),
                        static_cast<float>(eps)},
                       call.stream());
      return result;
    }
  }
  result.sum = update.defined() ? x + update.view_as(x) : x;
  const at::Tensor sum = result.sum.to(nn::sum_dtype(x));
  const at::Tensor inverse_rms = (sum.square().mean(-1, /*keepdim=*/true) + eps).rsqrt();
  result.normed = (sum * inverse_rms).mul_(weight).to(x.scalar_type());
  result.inverse_rms = inverse_rms.flatten();
  return result;
}

at::Tensor rms_norm_backward_(const at::Tensor& scaled_grad, const at::Tensor& x, const at::Tensor& weight,
                              const at::Tensor& inverse_rms, const at::Tensor& residual_grad) {
  nn::check_activation("rms_norm_backward_", "x", x);
  nn::check_contiguous("rms_norm_backward_", "x", x);
  nn::check_like("rms_norm_backward_", "scaled_grad", scaled_grad, x);
  nn::check_contiguous("rms_norm_backward_", "scaled_grad", scaled_grad);
  nn::check_weight("rms_norm_backward_", "weight", weight, x.size(-1), x);
  nn::check_vector("rms_norm_backward_", "inverse_rms", inverse_rms, nn::num_rows(x), nn::sum_dtype(x), x);
  if (residual_grad.defined()) {
    nn::check_like("rms_norm_backward_", "residual_grad", residual_grad, x);
    nn::check_contiguous("rms_norm_backward_", "residual_grad", residual_grad);
  }
  at::Tensor dx = scaled_grad.view_as(x);
  if constexpr (nn::kWithCuda) {
    if (nn::has_kernel(x, x.size(-1), {&x, &dx, &weight, &residual_grad})) {
      const nn::KernelCall call(x);
      nn::rms_norm_backward(
          {dx.mutable_data_ptr(), x.const_data_ptr(), nn::data_or_null(residual_grad), weight.const_data_ptr<float>(),
           inverse_rms.const_data_ptr<float>(), nn::kernel_dtype(x), nn::num_rows(x), x.size(-1)},
          call.stream());
      return dx;
    }
  }
  const at::Tensor wide = x.to(nn::sum_dtype(x));
  at::Tensor sum = dx * weight;  // A: fp32 times bf16 is fp32
  const at::Tensor projection = (sum * wide).mean(-1, /*keepdim=*/true);
  sum.sub_(wide * (projection * inverse_rms.square().view_as(projection)));
  if (residual_grad.defined()) sum.add_(residual_grad.view_as(x));
  dx.copy_(sum);
  return dx;
}

at::Tensor split_norm_gradient_(const at::Tensor& dmatrix, const at::Tensor& matrix, const at::Tensor& norm_weight) {
  const at::ScalarType dtype = dmatrix.scalar_type();
  LIGHTHOUSE_CHECK(dtype == at::kFloat || dtype == at::kDouble, "split_norm_gradient_: dmatrix is ",
                   c10::toString(dtype), "; must be float32 or float64");
  nn::check_activation("split_norm_gradient_", "matrix", matrix);
  LIGHTHOUSE_CHECK(matrix.dim() == 2 && matrix.sizes() == dmatrix.sizes() && matrix.device() == dmatrix.device(),
                   "split_norm_gradient_: matrix ", matrix.sizes(), " on ", matrix.device(), " and dmatrix ",
                   dmatrix.sizes(), " on ", dmatrix.device(), " must be one shape [out, C] on one device");
  nn::check_contiguous("split_norm_gradient_", "dmatrix", dmatrix);
  nn::check_weight("split_norm_gradient_", "norm_weight", norm_weight, dmatrix.size(1), dmatrix);
  if constexpr (nn::kWithCuda) {
    if (dtype == at::kFloat && matrix.is_contiguous() &&
        nn::has_kernel(matrix, matrix.size(1), {&matrix, &dmatrix, &norm_weight})) {
      const int64_t out = matrix.size(0);
      const int64_t channels = matrix.size(1);
      const at::Tensor partial = at::empty({nn::split_norm_chunks(out, channels), channels}, dmatrix.options());
      at::Tensor sums = at::empty({channels}, dmatrix.options());
      const nn::KernelCall call(matrix);
      nn::split_norm_gradient(
          {dmatrix.mutable_data_ptr<float>(), matrix.const_data_ptr(), norm_weight.const_data_ptr<float>(),
           partial.mutable_data_ptr<float>(), sums.mutable_data_ptr<float>(), nn::kernel_dtype(matrix), out, channels},
          call.stream());
      return sums;
    }
  }
  at::Tensor dnorm = (dmatrix * matrix).sum(0);
  dmatrix.mul_(norm_weight);
  return dnorm;
}

}  // namespace lighthouse

#include "nn/swiglu.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/sigmoid.h>

#include <cstdint>
#include <vector>

#include "nn/arguments.h"
#include "nn/kernel_call.h"
#include "nn/kernels.h"

namespace lighthouse {
namespace {

int64_t checked_ffn_dim(const char* function, const at::Tensor& gate_up) {
  nn::check_activation(function, "gate_up", gate_up);
  nn::check_contiguous(function, "gate_up", gate_up);
  LIGHTHOUSE_CHECK(gate_up.size(-1) % 2 == 0, function, ": gate_up ", gate_up.sizes(),
                   " must hold as many channels of gate as of up");
  return gate_up.size(-1) / 2;
}

}  // namespace

at::Tensor swiglu(const at::Tensor& gate_up) {
  const int64_t ffn_dim = checked_ffn_dim("swiglu", gate_up);
  if constexpr (nn::kWithCuda) {
    if (nn::has_kernel(gate_up, ffn_dim, {&gate_up})) {
      std::vector<int64_t> shape = gate_up.sizes().vec();
      shape.back() = ffn_dim;
      at::Tensor out = at::empty(shape, gate_up.options());
      const nn::KernelCall call(gate_up);
      nn::swiglu(
          {gate_up.const_data_ptr(), out.mutable_data_ptr(), nn::kernel_dtype(gate_up), nn::num_rows(gate_up), ffn_dim},
          call.stream());
      return out;
    }
  }
  const at::ScalarType dtype = nn::sum_dtype(gate_up);
  const at::Tensor gate = gate_up.narrow(-1, 0, ffn_dim).to(dtype);
  const at::Tensor up = gate_up.narrow(-1, ffn_dim, ffn_dim);
  return at::sigmoid(gate).mul_(gate).mul_(up).to(gate_up.scalar_type());  // the bits of the backward pass
}

void swiglu_backward_(const at::Tensor& gate_up, const at::Tensor& grad, const at::Tensor& inverse_rms) {
  const int64_t ffn_dim = checked_ffn_dim("swiglu_backward_", gate_up);
  const int64_t rows = nn::num_rows(gate_up);
  const at::ScalarType dtype = nn::sum_dtype(gate_up);
  LIGHTHOUSE_CHECK(grad.numel() == rows * ffn_dim && grad.scalar_type() == gate_up.scalar_type() &&
                       grad.device() == gate_up.device(),
                   "swiglu_backward_: grad is ", c10::toString(grad.scalar_type()), " ", grad.sizes(), " on ",
                   grad.device(), "; must be ", rows, " rows of ", ffn_dim, " channels like gate_up");
  nn::check_contiguous("swiglu_backward_", "grad", grad);
  nn::check_vector("swiglu_backward_", "inverse_rms", inverse_rms, rows, dtype, gate_up);

  if constexpr (nn::kWithCuda) {
    if (nn::has_kernel(gate_up, ffn_dim, {&gate_up, &grad})) {
      const nn::KernelCall call(gate_up);
      nn::swiglu_backward({gate_up.mutable_data_ptr(), grad.mutable_data_ptr(), inverse_rms.const_data_ptr<float>(),
                           nn::kernel_dtype(gate_up), rows, ffn_dim},
                          call.stream());
      return;
    }
  }
  at::Tensor gate = gate_up.view({rows, 2 * ffn_dim}).narrow(1, 0, ffn_dim);
  at::Tensor up = gate_up.view({rows, 2 * ffn_dim}).narrow(1, ffn_dim, ffn_dim);
  at::Tensor out = grad.view({rows, ffn_dim});
  const at::Tensor scale = inverse_rms.view({rows, 1});
  const at::Tensor wide_gate = gate.to(dtype);
  const at::Tensor sigmoid = at::sigmoid(wide_gate);
  const at::Tensor silu = wide_gate * sigmoid;
  const at::Tensor scaled = out * scale;  // A
  const at::Tensor dup = scaled * silu;
  const at::Tensor dgate = (scaled * up).mul_(sigmoid).mul_(wide_gate * (1 - sigmoid) + 1);
  out.copy_(silu * up);
  gate.copy_(dgate);
  up.copy_(dup);
}

}  // namespace lighthouse

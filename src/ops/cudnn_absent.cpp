// In place of the files that describe graphs of cuDNN, where the build has no CUDA or no cudnn-frontend.
#include <c10/util/Exception.h>

#include "ops/cudnn_backward.h"
#include "ops/cudnn_documents.h"

namespace lighthouse::ops {

bool cudnn_backward_runs(const at::Tensor& /*q*/, const at::Tensor& /*k*/, const at::Tensor& /*v*/,
                         const CudnnCall& /*call*/) {
  return false;
}

ThreeTensors cudnn_backward(const at::Tensor& /*q*/, const at::Tensor& /*k*/, const at::Tensor& /*v*/,
                            const at::Tensor& /*o*/, const at::Tensor& /*logsumexp*/, const at::Tensor& /*dout*/,
                            const CudnnCall& /*call*/) {
  TORCH_CHECK(false, "cudnn_backward: this build has no cudnn-frontend; ask cudnn_backward_runs first");
}

bool cudnn_documents_run(const at::Tensor& /*q*/, const at::Tensor& /*k*/, const std::vector<int64_t>& /*num_rows*/,
                         double /*softmax_scale*/) {
  return false;
}

at::Tensor cudnn_documents(const at::Tensor& /*q*/, const at::Tensor& /*k*/, const at::Tensor& /*v*/,
                           const std::vector<int64_t>& /*num_rows*/, double /*softmax_scale*/) {
  TORCH_CHECK(false, "cudnn_documents: this build has no cudnn-frontend; ask cudnn_documents_run first");
}

}  // namespace lighthouse::ops

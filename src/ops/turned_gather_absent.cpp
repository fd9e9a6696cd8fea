// A build without CUDA has no such kernels.
#include "ops/turned_gather.h"

namespace lighthouse::ops {

std::optional<SelectedRows> gather_turned_by_norm(const at::Tensor& /*q*/, const at::Tensor& /*k*/,
                                                  const at::Tensor& /*v*/, const Angles& /*angles*/,
                                                  at::IntArrayRef /*layout*/, bool /*cover_prefix*/,
                                                  at::OptionalIntArrayRef /*cu_seqlens*/) {
  return std::nullopt;
}

std::optional<at::Tensor> gather_rows_backward_turned(const at::Tensor& /*dq_rows*/, const at::Tensor& /*dk_rows*/,
                                                      const at::Tensor& /*dv_rows*/, const IndexMaps& /*maps*/,
                                                      int64_t /*seq_len*/, const Angles& /*angles*/,
                                                      const at::Tensor& /*row_scale*/, at::IntArrayRef /*layout*/,
                                                      at::OptionalIntArrayRef /*cu_seqlens*/) {
  return std::nullopt;
}

}  // namespace lighthouse::ops

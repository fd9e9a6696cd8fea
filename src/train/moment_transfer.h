// Moments that wait in the memory of the host, on their way through the device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "plan/moment_parts.h"

namespace lighthouse {

/// Throws std::runtime_error unless the host has room for both moments of so many elements, where `device` is a GPU.
void check_moment_room(int64_t num_elements, at::Device device);

/// Zeros, fp32 [sizes], in the memory of the host, and page-locked where `device` is a GPU. Throws std::runtime_error
/// when there is not so much.
at::Tensor host_zeros(at::IntArrayRef sizes, at::Device device);

/// Elements [begin, end) of moments `index`.
struct MomentPart {
  size_t index;
  int64_t begin, end;
  at::Tensor exp_avg, exp_avg_sq;  ///< [end - begin], on the device
  /// The same elements of tensors [index], each flat.
  at::Tensor of(const std::vector<at::Tensor>& tensors) const { return tensors[index].slice(0, begin, end); }
};

/// update(part) for all of them in order, on the current stream of `device`; what it leaves in the part's moments is on
/// the host at the end. `exp_avgs`, `exp_avg_sqs`: host_zeros, flat. Copies both ways run beside the updates. On the
/// CPU nothing is copied.
void pass_moments(const std::vector<at::Tensor>& exp_avgs, const std::vector<at::Tensor>& exp_avg_sqs,
                  at::Device device, const std::function<void(const MomentPart&)>& update,
                  int64_t part_elements = kMomentPartElements);

}  // namespace lighthouse

// What waits in the memory of the host from one update to the next, on its way through the device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "plan/transfer_parts.h"

namespace lighthouse {

/// Throw std::runtime_error unless the host has room for both moments, or the values, of so many elements, where
/// `device` is a GPU.
void check_moment_room(int64_t num_elements, at::Device device);
void check_weight_room(int64_t num_elements, at::Device device);

/// Zeros, fp32 [sizes], for moments in the memory of the host, and page-locked where `device` is a GPU. Throws
/// std::runtime_error when there is not so much.
at::Tensor host_zeros(at::IntArrayRef sizes, at::Device device);

/// Elements [begin, end) of tensors `index` of all kinds.
struct TransferPart {
  size_t index;
  int64_t begin, end;
  std::vector<at::Tensor> values;  ///< [kinds], each [end - begin], on the device
  /// The same elements of tensors [index], each flat.
  at::Tensor of(const std::vector<at::Tensor>& tensors) const { return tensors[index].slice(0, begin, end); }
};

/// update(part) for all of them in order, on the current stream of `device`; what it leaves in the part's values is on
/// the host at the end. `kinds`: [kinds][index], as weights and moments of the same parameters, fp32, flat, page-locked
/// where `device` is a GPU. Copies both ways run beside the updates. On the CPU nothing is copied.
void pass_through(const std::vector<std::vector<at::Tensor>>& kinds, at::Device device,
                  const std::function<void(const TransferPart&)>& update,
                  int64_t part_elements = kTransferPartElements);

}  // namespace lighthouse

// The tensors that checks and kernels of the operators are written for. These sources (checks, prepare, stage_params,
// cpu_kernels, cuda_call, cuda_kernels) are compiled twice: against ATen for the C++ library, and with
// LIGHTHOUSE_STABLE_ABI against PyTorch's stable ABI for the Python package, whose library then serves many versions
// of torch. The two tensor types share most names (x.dim(), x.size(0), x.const_data_ptr()); the rest is here.
#pragma once

#ifdef LIGHTHOUSE_STABLE_ABI
#include "stable/tensor.h"
#else
#include "ops/aten_tensor.h"
#endif

#include <cstdint>
#include <functional>
#include <tuple>
#include <vector>

namespace lighthouse::ops {

using Shape = std::vector<Size>;
using TwoTensors = std::tuple<Tensor, Tensor>;
using ThreeTensors = std::tuple<Tensor, Tensor, Tensor>;
/// q_rows, k_rows, v_rows, selection, slots
using SelectedRows = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

/// Uninitialised, contiguous, on the device of `like`.
Tensor empty(const Shape& shape, const Tensor& like, ScalarType dtype);
inline Tensor empty(const Shape& shape, const Tensor& like) { return empty(shape, like, like.scalar_type()); }
/// int32 zeros.
Tensor zeros(int64_t elements, const Tensor& like);
/// A copy on the CPU; waits for the device.
Tensor on_cpu(const Tensor& x);
Tensor contiguous(const Tensor& x);
/// A ParallelFor on torch's threads.
void parallel_for(int64_t count, int64_t grain, const std::function<void(int64_t, int64_t)>& body);

}  // namespace lighthouse::ops

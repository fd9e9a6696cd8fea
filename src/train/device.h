// Choices of the configuration as torch's values, and what the device promises.
#pragma once

#include <c10/core/Device.h>
#include <c10/core/ScalarType.h>

#include <optional>
#include <string>

#include "config/run_config.h"
#include "model/execution.h"

namespace lighthouse {

/// kAuto: CUDA where this build and this machine have it. Throws InvalidArgument for kCuda without, and for both where
/// the driver or the GPU is there and too old for the kernels. `local_rank`: of several processes on this machine, each
/// has a GPU of its own; InvalidArgument where there are too few. A launcher that shows each process but one GPU has
/// dealt them out.
at::Device resolve_device(DeviceChoice choice, int64_t local_rank = 0);
/// Makes a GPU the one that this thread runs on, as kernels need it; of the CPU nothing.
void use_device(at::Device device);
/// Makes what the libraries of matrix products and attention keep of a GPU for this thread and for autograd's: they
/// take memory that torch's allocator, once it has all, does not give back for them. Of the CPU nothing.
void open_libraries(at::Device device, at::ScalarType dtype);
/// The dtype of matrix products and attention.
at::ScalarType resolve_precision(Precision precision);
/// How training.precision, device, recompute, recompute_layers, offload, offload_layers and deterministic make a
/// decoder compute.
Execution resolve_execution(const RunConfig& config, int64_t local_rank = 0);

/// As the driver names it, "NVIDIA H100 80GB HBM3"; "" on the CPU.
std::string device_name(at::Device device);

/// The FLOP/s that the device promises for products in training.precision; nullopt where that is not known.
std::optional<double> peak_flops(const TrainingConfig& training, at::Device device);

}  // namespace lighthouse

// Tensors in safetensors files: fp64, fp32, fp16, bf16, int64, int32, int16, int8, uint8 and bool.
#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "io/safetensors.h"
#include "model/named_tensors.h"

namespace lighthouse {

/// The bytes of a contiguous tensor of the CPU, not copied. Throws InvalidArgument naming the tensor for other dtypes.
RawTensor raw_view(const std::string& name, const at::Tensor& tensor);

/// Tensors of any device and strides, as files want them; those that lie so already are not copied.
struct HostTensors {
  /// Throws InvalidArgument naming the tensor that is undefined, not dense, or of another dtype.
  explicit HostTensors(const NamedTensors& named);
  HostTensors(const HostTensors&) = delete;
  HostTensors& operator=(const HostTensors&) = delete;
  ~HostTensors() = default;

  std::vector<at::Tensor> tensors;  ///< what the views point to
  std::vector<RawTensor> views;     ///< in the given order
};

/// A new tensor of the CPU. Throws as InputFile::read does.
at::Tensor read_tensor(const SafetensorsFile& file, const StoredTensor& stored);

/// Whole files. Throw as write_safetensors, HostTensors and SafetensorsFile do. Reading gives tensors in file order.
void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata = {});
NamedTensors read_tensors(const std::filesystem::path& path);

}  // namespace lighthouse

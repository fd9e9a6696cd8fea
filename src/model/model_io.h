// Weights from files and checkpoints into a decoder.
#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "model/decoder.h"

namespace lighthouse {

/// Copies `tensors`, as saved in a checkpoint, into the decoder's parameters and buffers. Throws InvalidArgument naming
/// `source` and the tensor when one is missing, unknown, given twice, not floating-point or of another shape; then no
/// weight has changed.
void load_parameters(Decoder& decoder, const NamedTensors& tensors, const std::string& source = "load_parameters");

/// safetensors files of floating-point tensors (fp64, fp32, fp16, bf16). Reading copies to new CPU tensors, in file
/// order. Throw as write_safetensors and SafetensorsFile do, and InvalidArgument for other dtypes.
void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata = {});
NamedTensors read_tensors(const std::filesystem::path& path);

}  // namespace lighthouse

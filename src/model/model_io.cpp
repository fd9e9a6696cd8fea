#include "model/model_io.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstring>

#include "io/json_text.h"
#include "io/safetensors.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

struct DtypeName {
  at::ScalarType dtype;
  const char* name;
};
constexpr std::array kFloatDtypes = {DtypeName{at::kDouble, "F64"}, DtypeName{at::kFloat, "F32"},
                                     DtypeName{at::kHalf, "F16"}, DtypeName{at::kBFloat16, "BF16"}};

/// Every tensor of the decoder that a checkpoint holds, by name.
std::map<std::string, at::Tensor> destinations(const Decoder& decoder) {
  std::map<std::string, at::Tensor> found(decoder.parameters().begin(), decoder.parameters().end());
  found.insert(decoder.buffers().begin(), decoder.buffers().end());
  return found;
}

void check_tensor_fits(const std::string& source, const std::string& name, const at::Tensor& tensor,
                       const at::Tensor& destination) {
  LIGHTHOUSE_CHECK(tensor.defined() && at::isFloatingType(tensor.scalar_type()), source, ": tensor ", quoted(name),
                   " is not floating-point");
  LIGHTHOUSE_CHECK(tensor.sizes() == destination.sizes(), source, ": tensor ", quoted(name), " has shape ",
                   tensor.sizes(), ", the model needs ", destination.sizes(),
                   "; the weights were made with other model sizes");
}

}  // namespace

void load_parameters(Decoder& decoder, const NamedTensors& tensors, const std::string& source) {
  const std::map<std::string, at::Tensor> wanted = destinations(decoder);
  std::map<std::string, at::Tensor> given;
  for (const auto& [name, tensor] : tensors) {
    const auto destination = wanted.find(name);
    LIGHTHOUSE_CHECK(destination != wanted.end(), source, ": tensor ", quoted(name),
                     " is not one of the model's; the weights were made with another model configuration");
    check_tensor_fits(source, name, tensor, destination->second);
    LIGHTHOUSE_CHECK(given.emplace(name, tensor).second, source, ": tensor ", quoted(name), " is given twice");
  }
  for (const auto& [name, destination] : wanted) {
    LIGHTHOUSE_CHECK(given.contains(name), source, ": tensor ", quoted(name),
                     " is missing; the weights were made with another model configuration");
  }
  const at::NoGradGuard no_grad;
  for (const auto& [name, destination] : wanted) destination.copy_(given.at(name));
}

void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata) {
  std::vector<at::Tensor> host;  // keeps what the views point to
  std::vector<RawTensor> views;
  for (const auto& [name, tensor] : tensors) {
    const auto* const known =
        std::find_if(kFloatDtypes.begin(), kFloatDtypes.end(),
                     [&dtype = tensor](const DtypeName& each) { return each.dtype == dtype.scalar_type(); });
    LIGHTHOUSE_CHECK(known != kFloatDtypes.end(), "write_tensors: tensor ", quoted(name), " has dtype ",
                     c10::toString(tensor.scalar_type()), "; weights are floats of 16 to 64 bits");
    host.push_back(tensor.detach().cpu().contiguous());
    views.push_back({name,
                     known->name,
                     tensor.sizes().vec(),
                     {static_cast<const std::byte*>(host.back().const_data_ptr()), host.back().nbytes()}});
  }
  write_safetensors(path, views, metadata);
}

NamedTensors read_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const StoredTensor& stored : file.tensors()) {
    const auto* const known = std::find_if(kFloatDtypes.begin(), kFloatDtypes.end(),
                                           [&](const DtypeName& each) { return each.name == stored.dtype; });
    LIGHTHOUSE_CHECK(known != kFloatDtypes.end(), "'", path.string(), "': tensor ", quoted(stored.name), " has dtype ",
                     stored.dtype, "; weights must be F64, F32, F16 or BF16");
    at::Tensor tensor = at::empty(stored.shape, known->dtype);
    file.read(stored, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
    tensors.emplace_back(stored.name, tensor);
  }
  return tensors;
}

}  // namespace lighthouse

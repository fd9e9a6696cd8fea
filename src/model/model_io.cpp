#include "model/model_io.h"

#include <ATen/core/grad_mode.h>

#include <map>

#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

/// Every tensor of the decoder that a checkpoint holds, by name.
std::map<std::string, at::Tensor> destinations(const Decoder& decoder) {
  std::map<std::string, at::Tensor> found(decoder.values().begin(), decoder.values().end());
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

}  // namespace lighthouse

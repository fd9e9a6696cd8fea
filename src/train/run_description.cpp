#include "train/run_description.h"

#include <ATen/core/Tensor.h>
#include <torch/headeronly/version.h>

#include <nlohmann/json.hpp>

#include "train/device.h"

namespace lighthouse {

std::string describe_run(const Decoder& decoder, const SequenceLoader& loader, const std::string& data_path,
                         int64_t threads) {
  using Json = nlohmann::ordered_json;
  int64_t num_parameters = 0;
  for (const auto& [name, parameter] : decoder.parameters()) num_parameters += parameter.numel();
  const Json corpus = {{"path", data_path},
                       {"fingerprint", loader.fingerprint()},
                       {"content", loader.content_fingerprint()},
                       {"training_tokens", loader.num_training_tokens()},
                       {"validation_sequences", loader.num_validation_sequences()}};
  const Json json = {{"lighthouse", LIGHTHOUSE_VERSION},
                     {"torch", TORCH_VERSION},
                     {"device", decoder.device().str()},
                     {"device_name", device_name(decoder.device())},
                     {"threads", threads},
                     {"parameters", num_parameters},
                     {"corpus", corpus}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace lighthouse

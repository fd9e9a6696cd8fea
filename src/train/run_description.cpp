#include "train/run_description.h"

#include <nlohmann/json.hpp>

#include "config/schema.h"
#include "train/device.h"

namespace lighthouse {

std::string describe_run(const Decoder& decoder, const SequenceLoader& loader, const RunIdentity& identity,
                         const std::vector<KeyChange>& changes) {
  using Json = nlohmann::ordered_json;
  const DataConfig& data = identity.config.data;
  const Json corpus = {{"path", data.mixture.empty() ? Json(data.path) : Json(data.mixture)},
                       {"fingerprint", identity.corpus.fingerprint},
                       {"content", identity.corpus.content},
                       {"training_tokens", loader.num_training_tokens()},
                       {"validation_sequences", loader.num_validation_sequences()}};
  const Environment& environment = identity.environment;
  const Json json = {{"lighthouse", environment.lighthouse},
                     {"torch", environment.torch},
                     {"device", environment.device},
                     {"device_name", device_name(decoder.device())},
                     {"threads", environment.threads},
                     {"processes", {{"data", identity.data_size}, {"context", identity.context_size}}},
                     {"parameters", num_parameters(identity.config.model)},
                     {"corpus", corpus},
                     {"changes", to_json(changes)}};
  return json.dump(2, ' ', false, Json::error_handler_t::replace) + "\n";
}

}  // namespace lighthouse

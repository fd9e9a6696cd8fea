#include "eval/tasks.h"

namespace lighthouse {

nlohmann::ordered_json measure_loss(Evaluation& evaluation) {
  nlohmann::ordered_json result;
  for (const AttentionMode mode : evaluation.settings().modes) {
    std::vector<PartialSum> parts;
    nlohmann::ordered_json sequences = nlohmann::ordered_json::array();
    for (const SequenceLosses& losses : evaluation.losses(mode)) {
      parts.push_back(losses.all());
      const Mean mean = mean_of({&parts.back(), 1});
      sequences.push_back({{"index", losses.index}, {"loss", finite(mean.value)}, {"targets", mean.count}});
    }
    result[mode_name(mode)] = evaluation.loss_json(mean_of(parts));
    result[mode_name(mode)]["sequences"] = std::move(sequences);
  }
  return result;
}

}  // namespace lighthouse

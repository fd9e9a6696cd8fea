#include <algorithm>

#include "eval/tasks.h"

namespace lighthouse {

nlohmann::ordered_json measure_position(Evaluation& evaluation) {
  constexpr int64_t kFirst = 64;  // positions of the first bucket; every other has as many as all before it
  nlohmann::ordered_json result;
  for (const AttentionMode mode : evaluation.settings().modes) {
    const std::vector<SequenceLosses>& sequences = evaluation.losses(mode);
    const auto seq_len = static_cast<int64_t>(sequences.front().nats.size());
    nlohmann::ordered_json buckets = nlohmann::ordered_json::array();
    for (int64_t begin = 0; begin < seq_len; begin = std::max(2 * begin, kFirst)) {
      const int64_t end = std::min(std::max(2 * begin, kFirst), seq_len);
      std::vector<PartialSum> parts;
      for (const SequenceLosses& losses : sequences) parts.push_back(losses.part(begin, end));
      nlohmann::ordered_json bucket = {{"begin", begin}, {"end", end}};
      bucket.update(evaluation.loss_json(mean_of(parts)));
      buckets.push_back(std::move(bucket));
    }
    result[mode_name(mode)] = std::move(buckets);
  }
  return result;
}

}  // namespace lighthouse

#include <algorithm>
#include <cmath>

#include "eval/tasks.h"

namespace lighthouse {
namespace {

/// Inputs and targets of text and answer; the targets of the answer alone count.
Sequence as_sequence(const Prompt& prompt) {
  Sequence sequence;
  for (const char byte : prompt.text + prompt.answer) sequence.inputs.push_back(static_cast<unsigned char>(byte));
  sequence.targets.assign(sequence.inputs.begin() + 1, sequence.inputs.end());
  sequence.inputs.pop_back();
  std::fill(sequence.targets.begin(), sequence.targets.end() - static_cast<int64_t>(prompt.answer.size()),
            kIgnoredTarget);
  return sequence;
}

/// Bits of the answers, a part for each prompt.
std::vector<PartialSum> answer_bits(Evaluation& evaluation, const Task& task, int64_t length, int64_t trials) {
  const Filler filler = evaluation.filler();
  const int64_t per_batch = std::max<int64_t>(kBatchTokens / length, 1);
  std::vector<PartialSum> parts;
  for (int64_t first = 0; first < trials; first += per_batch) {
    std::vector<Sequence> batch;
    for (int64_t trial = first; trial < std::min(first + per_batch, trials); ++trial) {
      batch.push_back(as_sequence(make_prompt(task, evaluation.settings(), filler, length, trial)));
    }
    const std::vector<float> nats = token_losses(evaluation.decoder(), batch, AttentionMode::kDense);
    for (size_t prompt = 0; prompt < batch.size(); ++prompt) {
      double sum = 0;
      for (int64_t token = 0; token < length; ++token)
        sum += nats[prompt * static_cast<size_t>(length) + static_cast<size_t>(token)];
      parts.push_back({sum / std::log(2.0), kCopyBytes - kCueBytes});
    }
  }
  return parts;
}

}  // namespace

nlohmann::ordered_json measure_copy(Evaluation& evaluation) {
  const Task& task = find_task("copy");
  const int64_t trials = evaluation.settings().trials.value_or(task.trials);
  nlohmann::ordered_json cells = nlohmann::ordered_json::array();
  for (const int64_t length : evaluation.settings().lengths) {
    const Mean mean = mean_of(answer_bits(evaluation, task, length, trials));
    cells.push_back({{"distance", length - kCopyBytes},
                     {"length", length},
                     {"trials", trials},
                     {"bits_per_byte", finite(mean.value)},
                     {"standard_error", finite(mean.standard_error)}});
  }
  return {{"cells", cells}, {"chance_bits", 4.0}};
}

}  // namespace lighthouse

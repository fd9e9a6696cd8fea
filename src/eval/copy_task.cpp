#include <algorithm>
#include <cmath>

#include "eval/prompt_tokens.h"
#include "eval/tasks.h"

namespace lighthouse {
namespace {

/// Inputs and targets of text and answer; the targets of the answer alone count.
Sequence as_sequence(const TokenPrompt& prompt, size_t answer_begin) {
  Sequence sequence;
  sequence.inputs.assign(prompt.tokens.begin(), prompt.tokens.end() - 1);
  sequence.targets.assign(prompt.tokens.begin() + 1, prompt.tokens.end());
  std::fill_n(sequence.targets.begin(), answer_begin - 1, kIgnoredTarget);
  return sequence;
}

struct Copies {
  std::vector<PartialSum> bits;  ///< of the answers, a part for each prompt
  int64_t distance = 0;          ///< in tokens, of the first prompt
};

Copies measure_copies(Evaluation& evaluation, const Task& task, int64_t length, int64_t trials) {
  PromptTokens maker(task, evaluation.settings(), evaluation.filler(), evaluation.tokenizer());
  const int64_t per_batch = maker.are_equally_long() ? std::max<int64_t>(kBatchTokens / length, 1) : 1;
  Copies copies;
  for (int64_t first = 0; first < trials; first += per_batch) {
    std::vector<Sequence> batch;
    for (int64_t trial = first; trial < std::min(first + per_batch, trials); ++trial) {
      const TokenPrompt prompt = maker.make(length, trial);
      const PromptTokens::Answer answer = maker.answer(prompt);
      batch.push_back(as_sequence(prompt, answer.begin));
      copies.bits.push_back({0, answer.bytes});
      if (trial == 0) copies.distance = maker.copy_distance(prompt);
    }
    const std::vector<float> nats = token_losses(evaluation.decoder(), batch, AttentionMode::kDense);
    const size_t tokens = batch.front().inputs.size();
    for (size_t prompt = 0; prompt < batch.size(); ++prompt) {
      double sum = 0;
      for (size_t token = 0; token < tokens; ++token) sum += nats[prompt * tokens + token];
      copies.bits[static_cast<size_t>(first) + prompt].sum = sum / std::log(2.0);
    }
  }
  return copies;
}

}  // namespace

nlohmann::ordered_json measure_copy(Evaluation& evaluation) {
  const Task& task = find_task("copy");
  const int64_t trials = evaluation.settings().trials.value_or(task.trials);
  nlohmann::ordered_json cells = nlohmann::ordered_json::array();
  for (const int64_t length : evaluation.settings().lengths) {
    const Copies copies = measure_copies(evaluation, task, length, trials);
    const Mean mean = mean_of(copies.bits);
    cells.push_back({{"distance", copies.distance},
                     {"length", length},
                     {"trials", trials},
                     {"bits_per_byte", finite(mean.value)},
                     {"standard_error", finite(mean.standard_error)}});
  }
  return {{"unit", evaluation.prompt_unit()}, {"cells", cells}, {"chance_bits", 4.0}};
}

}  // namespace lighthouse

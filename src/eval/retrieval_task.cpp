// passkey and multikey: whether the digit that is likeliest to follow is the right one.
#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/log_softmax.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <cmath>

#include "eval/prompt_tokens.h"
#include "eval/tasks.h"

namespace lighthouse {
namespace {

/// Of prompts that belong together: one depth of one length, or all of a length.
struct Cell {
  int64_t correct = 0;
  std::vector<PartialSum> log_probabilities;  ///< one for each trial

  void add(bool right, double log_probability) {
    correct += right ? 1 : 0;
    log_probabilities.push_back({log_probability, 1});
  }
  nlohmann::ordered_json json() const {
    const auto trials = static_cast<int64_t>(log_probabilities.size());
    const Interval interval = wilson_interval(correct, trials);
    const Mean mean = mean_of(log_probabilities);
    return {{"trials", trials},
            {"correct", correct},
            {"accuracy", static_cast<double>(correct) / static_cast<double>(trials)},
            {"interval", {interval.low, interval.high}},
            {"log_probability", finite(mean.value)},
            {"standard_error", finite(mean.standard_error)}};
  }
};

/// Log-probabilities [B, 10] of the ten digits, among themselves, after prompts of one length. The answer is one token.
at::Tensor digit_log_probabilities(const Decoder& decoder, const std::vector<TokenPrompt>& prompts,
                                   const std::array<int64_t, 10>& digits) {
  const auto length = static_cast<int64_t>(prompts.front().tokens.size()) - 1;
  at::Tensor tokens = at::empty({static_cast<int64_t>(prompts.size()), length}, at::kLong);
  auto* place = tokens.mutable_data_ptr<int64_t>();
  for (const TokenPrompt& prompt : prompts) place = std::copy_n(prompt.tokens.begin(), length, place);
  const at::Tensor logits =
      decoder.last_logits(tokens.to(decoder.device()), AttentionMode::kDense).to(at::kCPU, at::kDouble);
  const at::Tensor columns = at::tensor(digits, at::kLong);
  return at::log_softmax(logits.index_select(1, columns), 1).contiguous();
}

struct Length {
  Cell all;
  std::vector<Cell> by_depth;
};

Length measure_length(Evaluation& evaluation, const Task& task, int64_t length, int64_t trials) {
  const size_t num_depths = evaluation.settings().depths.size();
  PromptTokens maker(task, evaluation.settings(), evaluation.filler(), evaluation.tokenizer());
  const int64_t per_batch = maker.are_equally_long() ? std::max<int64_t>(kBatchTokens / length, 1) : 1;
  Length result{{}, std::vector<Cell>(num_depths)};
  for (int64_t first = 0; first < trials; first += per_batch) {
    std::vector<TokenPrompt> prompts;
    for (int64_t trial = first; trial < std::min(first + per_batch, trials); ++trial) {
      prompts.push_back(maker.make(length, trial));
    }
    const at::Tensor digits =
        digit_log_probabilities(evaluation.decoder(), prompts, maker.digits(prompts.front().prompt));
    for (size_t index = 0; index < prompts.size(); ++index) {
      const double* const row = digits.const_data_ptr<double>() + 10 * index;
      const int64_t right = prompts[index].prompt.answer.front() - '0';
      const bool correct = std::isfinite(row[right]) && std::max_element(row, row + 10) - row == right;
      result.all.add(correct, row[right]);
      result.by_depth[(static_cast<size_t>(first) + index) % num_depths].add(correct, row[right]);
    }
  }
  return result;
}

nlohmann::ordered_json measure_retrieval(Evaluation& evaluation, const char* name) {
  const Task& task = find_task(name);
  const EvalSettings& settings = evaluation.settings();
  const int64_t trials = settings.trials.value_or(task.trials);
  nlohmann::ordered_json cells = nlohmann::ordered_json::array();
  nlohmann::ordered_json lengths = nlohmann::ordered_json::array();
  for (const int64_t length : settings.lengths) {
    const Length measured = measure_length(evaluation, task, length, trials);
    for (size_t depth = 0; depth < settings.depths.size(); ++depth) {
      if (measured.by_depth[depth].log_probabilities.empty()) continue;
      nlohmann::ordered_json cell = {{"length", length}, {"depth", settings.depths[depth]}};
      cell.update(measured.by_depth[depth].json());
      cells.push_back(std::move(cell));
    }
    nlohmann::ordered_json whole = {{"length", length}};
    whole.update(measured.all.json());
    lengths.push_back(std::move(whole));
  }
  return {{"trials_per_length", trials},
          {"unit", evaluation.prompt_unit()},
          {"cells", cells},
          {"lengths", lengths},
          {"chance", 0.1}};
}

}  // namespace

nlohmann::ordered_json measure_passkey(Evaluation& evaluation) { return measure_retrieval(evaluation, "passkey"); }

nlohmann::ordered_json measure_multikey(Evaluation& evaluation) {
  nlohmann::ordered_json result = measure_retrieval(evaluation, "multikey");
  result["keys"] = evaluation.settings().keys;
  return result;
}

}  // namespace lighthouse

// What the command line of `lighthouse eval` asks for.
#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/choices.h"
#include "eval/sample.h"
#include "eval/tasks.h"

namespace CLI {
class App;
}

namespace lighthouse::cli {

/// Of loss and position.
enum class MeasuredAttention { kDense, kLighthouse, kBoth };
constexpr std::array<std::string_view, 3> words_of(MeasuredAttention /*type*/) {
  return {"dense", "lighthouse", "both"};
}

/// What prompts are filled with: sentences that say nothing, or held-out text.
enum class PromptFiller { kSentences, kCorpus };
constexpr std::array<std::string_view, 2> words_of(PromptFiller /*type*/) { return {"sentences", "corpus"}; }

struct EvalOptions {
  std::string run, model;  ///< exactly one
  std::string data;        ///< empty: the run's
  std::vector<std::string> tasks = {"loss"};
  std::optional<MeasuredAttention> attention;  ///< empty: both of a run, dense of a model
  std::optional<DeviceChoice> device;          ///< empty: as the run; of a model automatic
  std::optional<Precision> precision;          ///< empty: as the run; of a model fp32
  std::optional<int64_t> seq_len;              ///< empty: as the run
  std::optional<int64_t> context, trials;
  std::vector<int64_t> lengths;                               ///< empty: from the sequence length
  std::vector<double> depths = {0, 15, 30, 50, 70, 85, 100};  ///< in percent
  PromptFiller filler = PromptFiller::kSentences;
  int64_t sequences = 64;
  int64_t keys = 4;
  uint64_t seed = kSampleSeed;
  int64_t show = 0;
  bool json = false;

  /// Each once, in the order in which they were first named. Throws InvalidArgument for names that are not known.
  std::vector<const Task*> chosen_tasks() const;
  bool reads_corpus() const;
  /// Whether the attention is dense, or not said.
  bool may_be_dense() const { return attention.value_or(MeasuredAttention::kDense) == MeasuredAttention::kDense; }
  /// Throws UsageError for values out of range and options that contradict one another.
  void check() const;
  /// `measured_len`: the sequence length, where it is known.
  EvalSettings settings(std::optional<int64_t> measured_len) const;
};

void add_eval_options(CLI::App& command, EvalOptions& options);

}  // namespace lighthouse::cli

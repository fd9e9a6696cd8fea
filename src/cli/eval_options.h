// What the command line of `lighthouse eval` asks for.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "eval/sample.h"
#include "eval/tasks.h"

namespace CLI {
class App;
}

namespace lighthouse::cli {

struct EvalOptions {
  std::string run, model;  ///< exactly one
  std::string data;        ///< empty: the run's
  std::vector<std::string> tasks = {"loss"};
  std::string attention;           ///< empty: both of a run, dense of a model
  std::string device, precision;   ///< empty: as the run; of a model auto and fp32
  std::optional<int64_t> seq_len;  ///< empty: as the run
  std::optional<int64_t> context, trials;
  std::vector<int64_t> lengths;                               ///< empty: from the sequence length
  std::vector<double> depths = {0, 15, 30, 50, 70, 85, 100};  ///< in percent
  std::string filler = "sentences";
  int64_t sequences = 64;
  int64_t keys = 4;
  uint64_t seed = kSampleSeed;
  int64_t show = 0;
  bool json = false;

  /// Each once, in the order in which they were first named. Throws InvalidArgument for names that are not known.
  std::vector<const Task*> chosen_tasks() const;
  bool reads_corpus() const;
  /// Throws UsageError for values out of range and options that contradict one another.
  void check() const;
  /// `measured_len`: the sequence length, where it is known.
  EvalSettings settings(std::optional<int64_t> measured_len) const;
};

void add_eval_options(CLI::App& command, EvalOptions& options);

}  // namespace lighthouse::cli

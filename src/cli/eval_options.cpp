#include "cli/eval_options.h"

#include <CLI/CLI.hpp>
#include <algorithm>

#include "cli/commands.h"
#include "cli/file_option.h"
#include "cli/number_option.h"
#include "cli/word_option.h"
#include "lighthouse/check.h"

namespace lighthouse::cli {
namespace {

template <typename... Parts>
void require(bool condition, const Parts&... parts) {
  if (!condition) throw UsageError(detail::concat(parts...));
}

bool has_prompts(const EvalOptions& options) {
  const std::vector<const Task*> tasks = options.chosen_tasks();
  return std::any_of(tasks.begin(), tasks.end(), [](const Task* task) { return task->prompt != nullptr; });
}

void check_model(const EvalOptions& options) {
  require(options.may_be_dense(), "--attention ", options.attention.value_or(MeasuredAttention::kDense),
          ": a folder of transformers has no options of Lighthouse Attention; --model is measured with dense "
          "attention, a run with either");
  require(!options.reads_corpus() || !options.data.empty(),
          "--model: give the text to measure it on, as --data PATH; only synthetic tasks go without");
  require(options.seq_len || (!options.reads_corpus() && !options.lengths.empty()),
          "--model: give a sequence length, as --seq-len 4096; the folder does not say which to measure at");
}

/// The sequence length and its halves down to 256, shortest first.
std::vector<int64_t> halves(int64_t seq_len) {
  constexpr int64_t kShortest = 256;
  std::vector<int64_t> lengths = {seq_len};
  while (lengths.front() / 2 >= kShortest) lengths.insert(lengths.begin(), lengths.front() / 2);
  return lengths;
}

std::string task_names() {
  std::string names;
  for (const Task& task : all_tasks()) names += (names.empty() ? "" : ",") + std::string(task.name);
  return names;
}

void add_prompt_options(CLI::App& command, EvalOptions& options) {
  constexpr int64_t kMostBytes = int64_t{1} << 30;
  within(command.add_option("--lengths", options.lengths,
                            "Tokens of prompts, as 1024,4096; usually the sequence length and its halves"),
         IntegerRange{1, kMostBytes})
      ->delimiter(',')
      ->option_text("N,N");
  within(command.add_option("--trials", options.trials, "Prompts of each length; usually 70, of copy 16"),
         IntegerRange{1})
      ->option_text("N");
  within(command.add_option("--depths", options.depths, "Where in a prompt the digit lies, in percent"),
         NumberRange{.min = 0, .max = 100})
      ->delimiter(',')
      ->option_text("0,15,30,50,70,85,100");
  within(command.add_option("--keys", options.keys, "Digits in a prompt of multikey, 2 to 10"), IntegerRange{2, 10})
      ->option_text("4");
  add_word_option<PromptFiller>(command, "--filler", options.filler,
                                "What prompts are filled with: sentences that say nothing, or held-out text")
      ->option_text("sentences");
  within(command.add_option("--show", options.show, "Print so many prompts of each length, and measure nothing"),
         IntegerRange{1})
      ->option_text("N");
}

/// In their order, without those that were there before.
template <typename Value>
std::vector<Value> each_once(const std::vector<Value>& values) {
  std::vector<Value> once;
  for (const Value& value : values) {
    if (std::find(once.begin(), once.end(), value) == once.end()) once.push_back(value);
  }
  return once;
}

}  // namespace

std::vector<const Task*> EvalOptions::chosen_tasks() const {
  std::vector<const Task*> chosen;
  for (const std::string& name : tasks) chosen.push_back(&find_task(name));
  return each_once(chosen);
}

bool EvalOptions::reads_corpus() const {
  const std::vector<const Task*> chosen = chosen_tasks();
  return context || filler == PromptFiller::kCorpus ||
         std::any_of(chosen.begin(), chosen.end(), [](const Task* task) { return task->prompt == nullptr; });
}

void EvalOptions::check() const {
  const bool prompts = has_prompts(*this);
  require(show == 0 || prompts, "--show: give the task whose prompts to show, as --task passkey");
  require(run.empty() || model.empty(), "--run and --model: give one of them");
  require(show > 0 || !run.empty() || !model.empty(),
          "give what to measure, one of --run RUN, a run folder, and --model FOLDER, an exported one");
  require(show == 0 || filler != PromptFiller::kCorpus || !run.empty() || !model.empty(),
          "--filler corpus: give the run whose held-out text to take, as --run RUN");
  if (!model.empty()) check_model(*this);
  require(attention != MeasuredAttention::kLighthouse || !(prompts || context),
          "--attention lighthouse: prompts and --context are measured with dense attention, as a trained model is "
          "used; ask for them in a command of their own");
  require(data.empty() || reads_corpus(),
          "--data: no task here reads a corpus; prompts are filled with it by --filler corpus");
  require(prompts || (lengths.empty() && !trials && filler != PromptFiller::kCorpus),
          "--lengths, --trials and --filler: no task here has prompts; add one, as --task passkey");
}

EvalSettings EvalOptions::settings(std::optional<int64_t> measured_len) const {
  constexpr int64_t kShownLength = 1024;
  EvalSettings settings;
  const MeasuredAttention wanted =
      attention.value_or(run.empty() ? MeasuredAttention::kDense : MeasuredAttention::kBoth);
  settings.modes.clear();
  if (wanted != MeasuredAttention::kLighthouse) settings.modes.push_back(AttentionMode::kDense);
  if (wanted != MeasuredAttention::kDense) settings.modes.push_back(AttentionMode::kLighthouse);
  settings.sequences = sequences;
  settings.context = context.value_or(0);
  settings.lengths = each_once(lengths);
  if (lengths.empty()) {
    const int64_t length = measured_len.value_or(kShownLength);
    settings.lengths = show > 0 ? std::vector{length} : halves(length);
  }
  for (const double depth : each_once(depths)) settings.depths.push_back(depth / 100);
  settings.trials = trials;
  settings.keys = keys;
  settings.corpus_filler = filler == PromptFiller::kCorpus;
  settings.seed = seed;
  return settings;
}

void add_eval_options(CLI::App& command, EvalOptions& options) {
  names_folder(command.add_option("--run", options.run, "Run folder: its newest whole checkpoint"))->option_text("RUN");
  names_folder(command.add_option("--model", options.model, "Folder of 'lighthouse export' or transformers"))
      ->option_text("FOLDER");
  command.add_option("--task", options.tasks, "What to measure, one or several, as loss,passkey")
      ->delimiter(',')
      ->type_name('{' + task_names() + '}')
      ->option_text("loss");
  add_word_option<MeasuredAttention>(command, "--attention", options.attention,
                                     "Of loss and position: dense, lighthouse or both")
      ->option_text("both");
  names_path(
      command.add_option("--data", options.data, "Another text or corpus than the run's held-out text, all of it"))
      ->option_text("PATH");
  within(command.add_option("--sequences", options.sequences, "At most so many sequences, spread over the text"),
         IntegerRange{1})
      ->option_text("64");
  within(command.add_option("--seq-len", options.seq_len,
                            "Tokens of a sequence, also beyond training; usually as the run"),
         kSequenceLengths)
      ->option_text("N");
  within(
      command.add_option("--context", options.context,
                         "Also the worth of far context: the loss with the last C to 1.25 C tokens less that with all"),
      IntegerRange{1})
      ->option_text("C");
  add_prompt_options(command, options);
  within(command.add_option("--seed", options.seed, "Of the sample of sequences and of the prompts"), IntegerRange{0})
      ->option_text("1");
  add_word_option<DeviceChoice>(command, "--device", options.device, "auto, cpu or cuda; usually as the run")
      ->option_text("DEVICE");
  add_word_option<Precision>(command, "--precision", options.precision,
                             "fp32 or bf16; usually as the run, of a model fp32")
      ->option_text("PRECISION");
  command.add_flag("--json", options.json, "Print JSON");
}

}  // namespace lighthouse::cli

#include <CLI/CLI.hpp>
#include <algorithm>
#include <filesystem>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>

#include "cli/commands.h"
#include "cli/eval_options.h"
#include "cli/eval_report.h"
#include "cli/open_run.h"
#include "cli/option_words.h"
#include "config/schema.h"
#include "data/encoded_text.h"
#include "data/tokenizer.h"
#include "eval/prompt_tokens.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "model/import.h"
#include "model/tokenizer_files.h"
#include "train/device.h"
#include "train/out_of_memory.h"
#include "train/prepared_corpus.h"
#include "train/schedule.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;

/// What is measured, and the held-out text that goes with it.
struct Subject {
  Decoder decoder;
  DataConfig data;
  std::optional<int64_t> seq_len;
  int64_t split_len = 0;                 ///< by which the run set its held-out text apart; 0: seq_len
  std::optional<CorpusIdentity> corpus;  ///< that it must be
  std::filesystem::path tokenizer;       ///< folder; empty: none, or tokens are bytes
  std::filesystem::path home;            ///< folder where its tokenizer would be, were there one
  bool of_bytes = false;                 ///< what it was trained on
  Json header;
};

/// Whether --data is text, which is to become tokens.
bool reads_text(const EvalOptions& options, const Subject& subject) {
  return options.reads_corpus() && !options.data.empty() && is_text(subject.data, options.data);
}

/// Of the subject, where it has one. Without it losses are measured all the same, but not of text, nor in bits a byte.
std::unique_ptr<Tokenizer> open_tokenizer(const EvalOptions& options, const Subject& subject,
                                          const std::vector<const Task*>& tasks) {
  if (subject.tokenizer.empty()) return nullptr;
  try {
    return std::make_unique<Tokenizer>(subject.tokenizer);
  } catch (const InvalidArgument& error) {
    if (reads_text(options, subject)) {
      throw InvalidArgument(detail::concat(error.what(), "; or prepare '", options.data,
                                           "' with lighthouse-prepare --tokenizer ", subject.tokenizer.string()));
    }
    if (std::any_of(tasks.begin(), tasks.end(), [](const Task* task) { return task->prompt != nullptr; })) throw;
    std::cerr << "warning: bits a byte are not known: " << printable(error.what()) << std::endl;
  }
  return nullptr;
}

Subject open_model(const EvalOptions& options) {
  check_model_folder(options.model);
  const Execution execution{.dtype = resolve_precision(options.precision.value_or(Precision::kFp32)),
                            .device = resolve_device(options.device.value_or(DeviceChoice::kAuto))};
  DataConfig data;
  data.path = data.validation_path = options.data;
  return {load_huggingface(options.model, {}, execution),
          data,
          options.seq_len,
          0,
          std::nullopt,
          has_text_tokenizer(options.model) ? options.model : "",
          options.model,
          false,
          {{"model", options.model}, {"step", nullptr}, {"stage", nullptr}}};
}

Subject open_subject(const EvalOptions& options) {
  if (!options.model.empty()) return open_model(options);
  LoadedRun run = open_run(options.run, options.device, options.precision);
  RunConfig config = run.config;
  if (config.attention.method != AttentionMethod::kLighthouse)
    config.attention = {};  // it is measured dense, at any length
  if (options.seq_len) config.training.seq_len = *options.seq_len;
  validate(config);
  const auto stage = static_cast<int>(stage_at(config.training, run.step - 1));
  Subject subject{std::move(run.decoder),
                  config.data,
                  config.training.seq_len,
                  run.config.training.seq_len,
                  run.corpus,
                  tokenizer_of(options.run, run.config),
                  std::filesystem::path(options.run) / kTokenizerFolder,
                  run.config.data.mixture.empty() && is_text(run.config.data, run.config.data.path),
                  {{"run", options.run}, {"step", run.step}, {"stage", stage}}};
  if (!options.data.empty()) {
    subject.data.path = subject.data.validation_path = options.data;
    subject.data.mixture.clear();
    subject.split_len = 0;
    subject.corpus.reset();
  }
  return subject;
}

/// The tokens of --data mean to the subject what they were made to mean.
void check_tokens(const EvalOptions& options, const Subject& subject) {
  const ModelConfig& model = subject.decoder.config();
  if (!reads_text(options, subject)) {
    check_vocabulary(subject.data, model.vocab_size);
    return check_tokenizer(subject.data, subject.tokenizer.empty() ? subject.home : subject.tokenizer,
                           model.vocab_size);
  }
  LIGHTHOUSE_CHECK(!subject.tokenizer.empty() || subject.of_bytes || reads_bytes(model), "data.path: '", options.data,
                   "' is text, and the model has ", model.vocab_size,
                   " tokens and no tokenizer that says which; 256 would be bytes. Put its tokenizer into '",
                   subject.home.string(), "', or give tokens, as lighthouse-prepare --tokenizer TOKENIZER makes them");
}

/// Opens what is text as the tokens of the tokenizer.
std::function<std::shared_ptr<TokenSource>(const std::string&)> encoding(const Subject& subject, Tokenizer& tokenizer) {
  return [&, opened = std::map<std::string, std::shared_ptr<TokenSource>>()](const std::string& path) mutable {
    std::shared_ptr<TokenSource>& text = opened[path];
    if (!text) text = open_encoded_text(path, subject.data.extensions, tokenizer, subject.tokenizer);
    return text;
  };
}

std::unique_ptr<SequenceLoader> open_corpus(const EvalOptions& options, const Subject& subject, Tokenizer* tokenizer) {
  auto loader = in_words_of_options([&] {
    if (!options.data.empty()) check_tokens(options, subject);
    const bool encodes = tokenizer != nullptr && reads_text(options, subject);
    return std::make_unique<SequenceLoader>(subject.data, subject.seq_len.value_or(0),
                                            subject.decoder.config().vocab_size, subject.split_len, /*group=*/1,
                                            encodes ? encoding(subject, *tokenizer) : nullptr);
  });
  if (subject.corpus) check_corpus(options.run, *subject.corpus, *loader, subject.data.path);
  return loader;
}

/// What a task would refuse after others were measured for long.
void check_settings(const Subject& subject, const EvalSettings& settings, const std::vector<const Task*>& tasks,
                    Tokenizer* tokenizer) {
  LIGHTHOUSE_CHECK(settings.context == 0 || settings.context < *subject.seq_len, "--context ", settings.context,
                   ": must be less than the sequence length, ", *subject.seq_len);
  for (const Task* task : tasks) {
    if (task->prompt == nullptr) continue;
    const ModelConfig& model = subject.decoder.config();
    LIGHTHOUSE_CHECK(reads_bytes(model) || tokenizer != nullptr, "--task ", task->name,
                     ": its prompts are text, and the model has ", model.vocab_size,
                     " tokens and no tokenizer that says what they mean; 256 would be bytes");
    PromptTokens maker(*task, settings, sentences_filler(), tokenizer);
    for (const int64_t length : settings.lengths) maker.make(length, 0);
  }
}

/// Those that a model with this tokenizer would be given; of bytes without one.
void show_prompts(const EvalOptions& options, const EvalSettings& settings, const Filler& filler,
                  Tokenizer* tokenizer) {
  for (const Task* task : options.chosen_tasks()) {
    if (task->prompt == nullptr) continue;
    PromptTokens maker(*task, settings, filler, tokenizer);
    for (const int64_t length : settings.lengths) {
      for (int64_t trial = 0; trial < options.show; ++trial) {
        const Prompt prompt = maker.make(length, trial).prompt;
        const Json json = {{"task", task->name}, {"length", length}, {"text", prompt.text}, {"answer", prompt.answer}};
        if (options.json) {
          std::cout << json.dump(-1, ' ', false, Json::error_handler_t::replace) << '\n';
        } else {
          std::cout << prompt.text << "\n[answer: " << prompt.answer << "]\n";
        }
      }
    }
  }
}

Json measure(const char* name, Json (*task)(Evaluation& evaluation), Evaluation& evaluation) {
  try {
    return task(evaluation);
  } catch (const std::exception& error) {
    const auto reason = out_of_memory_reason(error);
    if (!reason) throw;
    throw std::runtime_error(std::string("out of memory in task ") + name + ": " + *reason +
                             "; shorter sequences (--seq-len, --lengths) and --precision bf16 take less");
  }
}

/// The losses under the names that metrics.jsonl has for them.
void add_validation_loss(const Json& loss, Json& report) {
  for (const auto& [mode, result] : loss.items()) {
    report[mode == "dense" ? "validation_loss" : "validation_loss_lighthouse"] = result["loss"];
    report["sequences"] = result["sequences"].size();
    report["targets"] = result["targets"];
  }
}

Json evaluate(const Subject& subject, const SequenceLoader* loader, const EvalSettings& settings,
              const std::vector<const Task*>& tasks, Tokenizer* tokenizer) {
  Json report = {{"format", 1}};
  report.update(subject.header);
  report["seq_len"] = subject.seq_len ? Json(*subject.seq_len) : Json();
  if (loader != nullptr) {
    const int64_t available = loader->num_validation_sequences();
    const bool own_path = !subject.data.validation_path.empty();
    report["corpus"] = {{"path", own_path                       ? Json(subject.data.validation_path)
                                 : subject.data.mixture.empty() ? Json(subject.data.path)
                                                                : Json(subject.data.mixture)},
                        {"fingerprint", loader->content_fingerprint()},
                        {"sequences", std::min(settings.sequences, available)},
                        {"available", available}};
  }
  Evaluation evaluation(subject.decoder, loader, settings, tokenizer);
  const std::optional<double> bytes_per_token = evaluation.bytes_per_token();
  report["bytes_per_token"] = bytes_per_token ? Json(*bytes_per_token) : Json();
  Json results = Json::object();
  for (const Task* task : tasks) results[task->name] = measure(task->name, task->measure, evaluation);
  if (settings.context > 0) results["context"] = measure("context", measure_context, evaluation);
  if (results.contains("loss")) add_validation_loss(results["loss"], report);
  report["tasks"] = std::move(results);
  return report;
}

/// A run whose stage 1 had a control in place of Lighthouse Attention is measured with dense attention alone.
EvalOptions with_attention_of(const Subject& subject, EvalOptions options) {
  const AttentionMethod method = subject.decoder.attention().method;
  if (method == AttentionMethod::kLighthouse) return options;
  LIGHTHOUSE_CHECK(options.may_be_dense(), "--attention ", *options.attention,
                   ": stage 1 of the run has attention.method = \"", method,
                   "\" instead; it is measured with dense attention, as a trained model is used");
  options.attention = MeasuredAttention::kDense;
  return options;
}

void run_eval(const EvalOptions& options) {
  options.check();
  if (options.show > 0 && options.run.empty() && options.model.empty()) {
    return show_prompts(options, options.settings(options.seq_len), sentences_filler(), nullptr);
  }
  const Subject subject = in_words_of_device([&] { return open_subject(options); }, options.device.has_value());
  const EvalSettings settings = with_attention_of(subject, options).settings(subject.seq_len);
  const std::vector<const Task*> tasks = options.chosen_tasks();
  const std::unique_ptr<Tokenizer> tokenizer = open_tokenizer(options, subject, tasks);
  check_settings(subject, settings, tasks, tokenizer.get());
  const auto loader = options.reads_corpus() ? open_corpus(options, subject, tokenizer.get()) : nullptr;
  if (options.show > 0) {
    const Evaluation evaluation(subject.decoder, loader.get(), settings, tokenizer.get());
    return show_prompts(options, settings, evaluation.filler(), tokenizer.get());
  }
  const Json report = evaluate(subject, loader.get(), settings, tasks, tokenizer.get());
  if (options.json) {
    std::cout << report.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
  } else {
    print_evaluation(report, std::cout);
  }
}

std::string task_list() {
  std::string list = "Tasks:\n";
  for (const Task& task : all_tasks()) list += detail::concat("  ", task.name, ": ", task.help, '\n');
  return list;
}

}  // namespace

void add_eval_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("eval", "Measure a model: loss on held-out text, retrieval from long prompts");
  auto options = std::make_shared<EvalOptions>();
  add_eval_options(*command, *options);
  command->footer(task_list() +
                  "\nExamples:\n"
                  "  lighthouse eval --run runs/mine\n"
                  "  lighthouse eval --run runs/mine --task loss,position --context 1024 --json\n"
                  "  lighthouse eval --run runs/mine --task passkey,copy --lengths 4096,16384\n"
                  "  lighthouse eval --model my_model --data text/ --seq-len 4096\n"
                  "  lighthouse eval --task passkey --lengths 512 --show 1");
  command->callback([options] { run_eval(*options); });
}

}  // namespace lighthouse::cli

#include <CLI/CLI.hpp>
#include <algorithm>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "audit/audit.h"
#include "cli/audit_report.h"
#include "cli/commands.h"
#include "cli/config_options.h"
#include "cli/file_option.h"
#include "cli/number_option.h"
#include "cli/open_run.h"
#include "cli/option_words.h"
#include "cli/word_option.h"
#include "io/printable.h"
#include "model/import.h"
#include "train/device.h"

namespace lighthouse::cli {
namespace {

using Json = nlohmann::ordered_json;

struct AuditArguments {
  std::string run;
  std::string model;
  std::string data;
  std::optional<DeviceChoice> device;  ///< as the run; of a model automatic
  std::unique_ptr<ConfigOptions> attention;
  std::optional<int64_t> seq_len;  ///< empty: as in the run
  int64_t sequences = 8;
  AuditOptions audit;
  bool json = false;
};

struct AuditedModel {
  Json name;  ///< {"run", "step"} or {"model"}
  RunConfig config;
  Decoder decoder;
  int64_t split_len = 0;                   ///< by which its run has set apart what is read (SequenceLoader)
  std::optional<CorpusIdentity> corpus{};  ///< that it must be
};

/// The configuration of the model with what the command line asks for.
RunConfig configure(RunConfig config, const AuditArguments& options) {
  if (!options.data.empty()) {
    config.data.path = config.data.validation_path = options.data;
    config.data.mixture.clear();
  }
  if (options.seq_len) config.training.seq_len = *options.seq_len;
  return options.attention->apply_to(std::move(config));
}

AuditedModel open_audited(const AuditArguments& options) {
  check_one_model(options.run, options.model);
  if (!options.run.empty()) {
    LoadedRun run = open_run(options.run, options.device);
    RunConfig config = configure(run.config, options);
    Decoder decoder = run.decoder.with_attention(config.attention);
    const bool is_its_data = options.data.empty();
    return {{{"run", options.run}, {"step", run.step}},
            std::move(config),
            std::move(decoder),
            is_its_data ? run.config.training.seq_len : 0,
            is_its_data ? std::optional(run.corpus) : std::nullopt};
  }
  if (options.data.empty()) throw UsageError("--model needs text to run it on: --data PATH");
  check_model_folder(options.model);
  RunConfig config;
  config.model = read_huggingface_config(options.model);
  config = configure(std::move(config), options);
  const at::Device device = resolve_device(options.device.value_or(DeviceChoice::kAuto));
  Decoder decoder = load_huggingface(options.model, config.attention, {.device = device});
  return {{{"model", options.model}}, std::move(config), std::move(decoder)};
}

/// Held-out sequences, spread evenly over the corpus.
std::vector<Sequence> read_sequences(const AuditedModel& model, const std::string& run_dir, int64_t wanted) {
  const RunConfig& config = model.config;
  const SequenceLoader loader = in_words_of_options(
      [&] { return SequenceLoader(config.data, config.training.seq_len, config.model.vocab_size, model.split_len); });
  if (model.corpus) check_corpus(run_dir, *model.corpus, loader, config.data.path);
  const int64_t available = loader.num_validation_sequences();
  const int64_t count = std::min(available, wanted);
  std::vector<Sequence> sequences;
  for (int64_t i = 0; i < count; ++i) sequences.push_back(loader.validation_sequence(i * available / count));
  return sequences;
}

Json attention_json(const AttentionConfig& attention, int64_t num_layers) {
  Json topk = attention.topk_per_layer.empty() ? Json(attention.topk) : Json(attention.topk_per_layer);
  return {{"num_layers", num_layers},
          {"full_attention_layers", attention.full_attention_layers},
          {"window_layers", attention.window_layers},
          {"num_levels", attention.num_levels},
          {"pooling_factor", attention.pooling_factor},
          {"topk", std::move(topk)},
          {"tile_topk", attention.tile_topk},
          {"cover_prefix", attention.cover_prefix},
          {"scorer", word(attention.scorer)}};
}

void print_header(const Json& report) {
  if (report.contains("run")) {
    std::cout << "run " << printable_name(report["run"].get<std::string>()) << " after step " << report["step"];
  } else {
    std::cout << "model " << printable_name(report["model"].get<std::string>());
  }
  const Json& attention = report["attention"];
  std::cout << ", " << report["sequences"] << " sequences of " << report["seq_len"] << " tokens, "
            << report["changes_per_sequence"] << " changes each\nLighthouse attention in "
            << attention["num_layers"].get<int64_t>() -
                   static_cast<int64_t>(attention["full_attention_layers"].size()) -
                   static_cast<int64_t>(attention["window_layers"].size())
            << " of " << attention["num_layers"] << " layers: num_levels " << attention["num_levels"]
            << ", pooling_factor " << attention["pooling_factor"] << ", topk " << attention["topk"] << ", tile_topk "
            << attention["tile_topk"] << ", scorer " << attention["scorer"].get<std::string>() << "\n\n";
}

void run_audit(const AuditArguments& options) {
  const AuditedModel model = in_words_of_device([&] { return open_audited(options); }, options.device.has_value());
  if (options.sequences < 2) {
    throw UsageError("--sequences " + std::to_string(options.sequences) +
                     ": must be at least 2; one sequence is changed to tokens of another");
  }
  const std::vector<Sequence> sequences = read_sequences(model, options.run, options.sequences);
  const Audit result = audit(model.decoder, sequences, options.audit);
  const std::optional<std::string> wrong = violation(result.held);
  Json report = model.name;
  report["seq_len"] = model.config.training.seq_len;
  report["sequences"] = sequences.size();
  report["changes_per_sequence"] = options.audit.changes_per_sequence;
  report["seed"] = options.audit.seed;
  report["attention"] = attention_json(model.config.attention, model.config.model.num_layers);
  report["causal"] = !wrong.has_value();
  report.update(audit_json(result));
  if (options.json) {
    std::cout << report.dump(2, ' ', false, Json::error_handler_t::replace) << '\n';
  } else {
    print_header(report);
    print_audit(result, std::cout);
  }
  if (wrong) throw std::runtime_error(*wrong);
}

}  // namespace

void add_audit_command(CLI::App& app) {
  CLI::App* command = app.add_subcommand("audit", "Measure what is causal in a model with Lighthouse attention");
  auto options = std::make_shared<AuditArguments>();
  names_folder(command->add_option("--run", options->run, "Run folder: its newest whole checkpoint"))
      ->option_text("RUN");
  names_folder(
      command->add_option("--model", options->model, "Folder of 'lighthouse export' or transformers; needs --data"))
      ->option_text("FOLDER");
  names_path(command->add_option("--data", options->data, "Another corpus than the run's validation text, all of it"))
      ->option_text("PATH");
  command->add_flag("--loss", options->audit.loss, "Measure too whether look-ahead lowers the loss of stage one");
  within(command->add_option("--tile-topk", options->audit.tile_topk,
                             "With a free selection: budgets of a tile, as 32,64 "
                             "[32, 64, ... to one tile for the sequence]"),
         IntegerRange{1})
      ->delimiter(',')
      ->option_text("N,N,...");
  within(command->add_option("--sequences", options->sequences, "At most so many sequences, spread over the text"),
         IntegerRange{1})
      ->capture_default_str();
  within(
      command->add_option("--changes", options->audit.changes_per_sequence, "Places of each sequence that are changed"),
      IntegerRange{1})
      ->capture_default_str();
  within(command->add_option("--seed", options->audit.seed, "Of those places"), IntegerRange{0})->capture_default_str();
  within(command->add_option("--seq-len", options->seq_len, "Tokens of a sequence; usually as the run"),
         kSequenceLengths)
      ->option_text("N");
  add_word_option<DeviceChoice>(*command, "--device", options->device, "auto, cpu or cuda; usually as the run")
      ->option_text("DEVICE");
  command->add_flag("--json", options->json, "Print JSON");
  options->attention =
      std::make_unique<ConfigOptions>(*command, "attention", "[attention] usually as the run, defaults with --model");
  command->footer(
      "Exit codes: 0 no earlier output moved with the selection held, 1 one did, or it failed, 2 wrong usage.\n"
      "\nExamples:\n"
      "  lighthouse audit --run runs/mine\n"
      "  lighthouse audit --run runs/mine --loss --sequences 64 --json\n"
      "  lighthouse audit --model my_model --data text/ --seq-len 32768 --attention.topk 512");
  command->callback([options] { run_audit(*options); });
}

}  // namespace lighthouse::cli

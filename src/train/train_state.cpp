#include "train/train_state.h"

#include <algorithm>
#include <array>
#include <bit>
#include <limits>
#include <string_view>
#include <vector>

#include "config/key_table.h"
#include "config/schema.h"
#include "io/errors.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "train/schedule.h"

namespace lighthouse {
namespace {

constexpr int64_t kVersion = 1;

/// Keys that a resumed run may change. The fingerprint of the data says whether it is the same, wherever it lies; what
/// backward recomputes, and where inputs and moments wait, does not change a bit; initial weights have been read.
bool may_change(std::string_view key) {
  constexpr std::array<std::string_view, 4> kSections = {"parallel.", "validation.", "checkpoint.", "logging."};
  constexpr std::array<std::string_view, 16> kKeys = {kPresetKey,
                                                      "training.initial_weights",
                                                      "training.initial_rope",
                                                      "training.device",
                                                      "training.threads",
                                                      "training.recompute",
                                                      "training.recompute_layers",
                                                      "training.offload",
                                                      "training.offload_layers",
                                                      "training.offload_optimizer",
                                                      "training.offload_weights",
                                                      "training.deterministic",
                                                      "data.path",
                                                      "data.format",
                                                      "data.validation_path",
                                                      "data.extensions"};
  return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end() ||
         std::any_of(kSections.begin(), kSections.end(), [&](auto section) { return key.starts_with(section); });
}

/// Keys that may change as far as they are of steps to come.
bool is_of_schedule(std::string_view key) {
  constexpr std::array<std::string_view, 5> kKeys = {"training.steps", "training.lighthouse_steps",
                                                     "optimizer.schedule", "optimizer.decay_steps",
                                                     "optimizer.min_learning_rate_ratio"};
  return std::find(kKeys.begin(), kKeys.end(), key) != kKeys.end();
}

/// "model.dim (64 in the checkpoint, 128 now), ..." of the keys that are looked at.
std::string differing_keys(const RunConfig& saved, const RunConfig& now, bool (*is_looked_at)(std::string_view)) {
  std::vector<KeyChange> list;
  for (const Key& key : key_table()) {
    if (!is_looked_at(key.name)) continue;
    const std::string before = value_toml(key, saved);
    const std::string after = value_toml(key, now);
    if (before != after) list.push_back({0, key.name, before, after});
  }
  return words_of(list);
}

CorpusIdentity read_corpus(const nlohmann::json& state) {
  return {state.at("fingerprint").get<std::string>(), state.value("content", std::string())};
}

void check_same_run(const RunConfig& saved, const RunConfig& now, const std::string& source) {
  const std::string differing =
      differing_keys(saved, now, [](std::string_view key) { return !may_change(key) && !is_of_schedule(key); });
  LIGHTHOUSE_CHECK(differing.empty(), "cannot go on from '", source, "': the configuration differs in ", differing,
                   "; use the values of the run, start a new one with another logging.run_dir, or name what may change "
                   "for the steps to come (--change)");
}

void check_same_corpus(const RunConfig& saved, const CorpusIdentity& corpus, const RunIdentity& now,
                       const std::string& source) {
  const std::string other = difference(corpus, now.corpus, now.corpus_changes);
  LIGHTHOUSE_CHECK(other.empty(), "cannot go on from '", source, "': the corpus '", now.config.data.path,
                   "' is not the one of the run, which was '", saved.data.path, "' (", other,
                   "); give that data, or start a new run with another logging.run_dir");
}

/// A run may get longer or shorter, and its switch and decay may move, while they are ahead.
void check_same_past(const RunConfig& saved, const RunConfig& now, int64_t num_done, const std::string& source,
                     const std::function<void(const std::string&)>& warn) {
  const std::string changed = differing_keys(saved, now, is_of_schedule);
  if (changed.empty()) return;
  const std::string difference = difference_of_past(saved, now, num_done);
  LIGHTHOUSE_CHECK(difference.empty(), "cannot go on from '", source, "': the configuration differs in ", changed,
                   ", and ", difference,
                   "; use the values of the run, or start a new one with another logging.run_dir");
  warn("the run goes on with other steps to come: " + changed);
}

/// Whether a place in the data of before says nothing of that of now. Mixtures are read in groups of a micro-batch.
bool is_other_data(const RunConfig& before, const CorpusIdentity& corpus, const RunIdentity& now) {
  return !difference(corpus, now.corpus).empty() ||
         (!now.config.data.mixture.empty() && before.training.batch_size != now.config.training.batch_size);
}

/// What checkpoints of earlier versions do not say is empty.
Environment read_environment(const nlohmann::json& state) {
  return {state.at("device").get<std::string>(), state.value("processor", std::string()),
          whole_member(state, "threads"),        state.value("lighthouse", std::string()),
          state.value("torch", std::string()),   state.value("cudnn", std::string())};
}

void warn_of_other_bits(const Environment& before, const Environment& now,
                        const std::function<void(const std::string&)>& warn) {
  const std::string list = changes(before, now);
  if (list.empty()) return;
  const bool threads = before.device == now.device && before.threads != now.threads;
  warn("the run goes on with " + list + ": the result will differ in its last bits from an unbroken run" +
       (threads ? "; training.threads sets the number" : ""));
}

/// Processes along a dimension of the mesh; checkpoints of earlier versions had one.
int64_t processes_of(const nlohmann::json& state, const char* dimension) {
  return state.contains(dimension) ? whole_member(state, dimension) : 1;
}

/// Any power of two of groups adds a tree of micro-batches with the same bits.
void warn_of_other_processes(const nlohmann::json& state, const RunIdentity& now,
                             const std::function<void(const std::string&)>& warn) {
  const int64_t data_size = processes_of(state, "data_size"), context_size = processes_of(state, "context_size");
  if (data_size == now.data_size && context_size == now.context_size) return;
  const auto is_power = [](int64_t count) { return std::has_single_bit(static_cast<uint64_t>(count)); };
  const bool tree = now.config.training.accumulation == Accumulation::kTree && context_size == now.context_size;
  if (tree && is_power(data_size) && is_power(now.data_size)) return;
  warn(detail::concat("the run goes on with parallel.data = ", now.data_size,
                      " and parallel.context = ", now.context_size, " instead of ", data_size, " and ", context_size,
                      ": the result will differ in its last bits from an unbroken run"));
}

nlohmann::ordered_json validation_to_json(const std::optional<ValidationRecord>& validation) {
  if (!validation) return nullptr;
  nlohmann::ordered_json json = {{"dense", validation->dense}};
  if (validation->lighthouse) json["lighthouse"] = *validation->lighthouse;
  return json;
}

/// Null was not finite.
double number_member(const nlohmann::json& json, const char* name) {
  const nlohmann::json& value = json.at(name);
  return value.is_null() ? std::numeric_limits<double>::quiet_NaN() : value.get<double>();
}

std::optional<double> optional_member(const nlohmann::json& json, const char* name) {
  return json.contains(name) ? std::optional(number_member(json, name)) : std::nullopt;
}

std::optional<ValidationRecord> validation_from_json(const nlohmann::json& json) {
  if (json.is_null()) return std::nullopt;
  return ValidationRecord{number_member(json, "dense"), optional_member(json, "lighthouse")};
}

/// What the rest of the state does not say of the last step.
nlohmann::ordered_json record_to_json(const std::optional<StepRecord>& record) {
  if (!record) return nullptr;
  nlohmann::ordered_json json = {{"loss", record->loss},
                                 {"learning_rate", record->learning_rate},
                                 {"grad_norm", record->gradient_norm},
                                 {"tokens_per_s", record->tokens_per_s},
                                 {"spike", record->spike},
                                 {"skipped", record->skipped},
                                 {"switches", record->switch_report.has_value()},
                                 {"sources", nlohmann::json::array()}};
  if (record->mfu) json["mfu"] = *record->mfu;
  for (const SourceRecord& source : record->sources) {
    json["sources"].push_back({{"name", source.name}, {"epochs", source.epochs}});
    if (source.loss) json["sources"].back()["loss"] = *source.loss;
  }
  return json;
}

/// Of the last step of `state`.
StepRecord record_from_json(const nlohmann::json& json, const TrainState& state, const RunConfig& config) {
  StepRecord record;
  record.step = state.step;
  record.stage = stage_at(config.training, state.step - 1);
  record.loss = number_member(json, "loss");
  record.learning_rate = number_member(json, "learning_rate");
  record.gradient_norm = number_member(json, "grad_norm");
  record.tokens = state.tokens;
  record.tokens_per_s = number_member(json, "tokens_per_s");
  record.mfu = optional_member(json, "mfu");
  record.seconds = state.seconds;
  record.train_seconds = state.train_seconds;
  record.spike = json.at("spike").get<std::string>();
  record.skipped = json.at("skipped").get<std::string>();
  if (json.at("switches").get<bool>()) record.switch_report = state.switch_tracker.report();
  for (const nlohmann::json& source : json.at("sources")) {
    record.sources.push_back({source.at("name").get<std::string>(), optional_member(source, "loss"),
                              number_member(source, "epochs"), std::nullopt, std::nullopt});
  }
  if (record.sources.size() != config.data.mixture.size()) {
    throw DamagedFile(detail::concat(record.sources.size(), " sources of a step, of ", config.data.mixture.size()));
  }
  return record;
}

/// Of a start with `changes` of its own: data that they change begins anew, and a validation that is left would be of
/// another configuration.
void apply_changes(TrainState& state, const std::vector<KeyChange>& changes, bool is_other_data,
                   const std::function<void(const std::string&)>& warn) {
  if (changes.empty()) return;
  state.changes.insert(state.changes.end(), changes.begin(), changes.end());
  state.unvalidated.reset();
  if (is_other_data) state.next_sequence = 0;
  warn("the run goes on with " + words_of(changes) + (is_other_data ? "; its data is read from the beginning" : ""));
}

/// `saved`: the configuration of the steps that are done.
TrainState read_state(const nlohmann::json& json, const RunConfig& saved, const RunConfig& now) {
  TrainState state(now.training);
  state.step = whole_member(json, "step");
  state.next_sequence = whole_member(json, "next_sequence");
  state.tokens = whole_member(json, "tokens");
  state.skipped_in_row = whole_member(json, "skipped_in_row");
  state.seconds = json.at("seconds").get<double>();
  state.train_seconds = json.value("train_seconds", 0.0);  // absent from older checkpoints, like spikes and unvalidated
  state.last_validation = validation_from_json(json.at("last_validation"));
  state.switch_tracker.load_json(json.at("switch"), state.step);
  state.changes = changes_from_json(json.value("changes", nlohmann::json::array()));
  if (json.contains("spikes")) state.spike_detector.load_json(json["spikes"]);
  if (json.contains("unvalidated") && !json["unvalidated"].is_null()) {
    state.unvalidated = record_from_json(json["unvalidated"], state, saved);
  }
  return state;
}

std::string unreadable(const std::string& source) { return "'" + source + "': the state of the run does not read"; }

}  // namespace

std::string state_to_json(const TrainState& state, const RunIdentity& identity) {
  const nlohmann::ordered_json json = {{"version", kVersion},
                                       {"step", state.step},
                                       {"next_sequence", state.next_sequence},
                                       {"tokens", state.tokens},
                                       {"skipped_in_row", state.skipped_in_row},
                                       {"seconds", state.seconds},
                                       {"train_seconds", state.train_seconds},
                                       {"last_validation", validation_to_json(state.last_validation)},
                                       {"switch", state.switch_tracker.to_json()},
                                       {"spikes", state.spike_detector.to_json()},
                                       {"unvalidated", record_to_json(state.unvalidated)},
                                       {"changes", to_json(state.changes)},
                                       {"fingerprint", identity.corpus.fingerprint},
                                       {"content", identity.corpus.content},
                                       {"threads", identity.environment.threads},
                                       {"device", identity.environment.device},
                                       {"processor", identity.environment.processor},
                                       {"lighthouse", identity.environment.lighthouse},
                                       {"torch", identity.environment.torch},
                                       {"cudnn", identity.environment.cudnn},
                                       {"data_size", identity.data_size},
                                       {"context_size", identity.context_size},
                                       {"config", to_toml(identity.config)}};
  return json.dump(2);
}

CorpusIdentity corpus_from_json(const std::string& text, const std::string& source) {
  const nlohmann::json json = parse_json(text, source);
  return reading(unreadable(source), [&] { return read_corpus(json); });
}

TrainState state_from_json(const std::string& text, const RunIdentity& now, const std::string& source,
                           const std::function<void(const std::string&)>& warn) {
  const nlohmann::json json = parse_json(text, source);
  return reading(unreadable(source), [&] {
    const int64_t version = whole_member(json, "version");
    LIGHTHOUSE_CHECK(version == kVersion, "cannot go on from '", source, "': its state has version ", version,
                     ", this program reads ", kVersion);
    RunConfig saved;
    apply_toml(saved, json.at("config").get<std::string>(), source);
    const RunConfig before = saved;
    const std::vector<KeyChange> changes = take_changes(saved, now.config, now.changing, whole_member(json, "step"));
    check_same_run(saved, now.config, source);
    const CorpusIdentity corpus = read_corpus(json);
    if (!change_data(changes)) check_same_corpus(before, corpus, now, source);
    TrainState state = read_state(json, before, now.config);
    check_same_past(saved, now.config, state.step, source, warn);
    apply_changes(state, changes, is_other_data(before, corpus, now), warn);
    warn_of_other_bits(read_environment(json), now.environment, warn);
    warn_of_other_processes(json, now, warn);
    return state;
  });
}

}  // namespace lighthouse

#include "train/trainer.h"

#include <ATen/Parallel.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "config/schema.h"
#include "eval/validation.h"
#include "io/durable_file.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "model/model_io.h"
#include "train/checkpoint.h"
#include "train/corpus_record.h"
#include "train/device.h"
#include "train/environment.h"
#include "train/initial_weights.h"
#include "train/out_of_memory.h"
#include "train/prepared_corpus.h"
#include "train/run_description.h"
#include "train/run_texts.h"
#include "train/stop_signal.h"
#include "train/text.h"

namespace lighthouse {
namespace {

constexpr int64_t kMaxSkipped = 5;  // one bad batch is bad luck, five in a row are a run that has diverged

RunConfig prepare(const RunConfig& config) {
  validate(config);
  check_vocabulary(config.data, config.model.vocab_size);
  if (config.training.threads > 0) at::set_num_threads(static_cast<int>(config.training.threads));
  return config;
}

uint64_t seed(const RunConfig& config) { return static_cast<uint64_t>(config.training.seed); }

AttentionMode attention_mode(Stage stage) {
  return stage == Stage::kLighthouse ? AttentionMode::kLighthouse : AttentionMode::kDense;
}

/// "" when loss and gradients are finite.
std::string what_is_not_finite(const StepRecord& record, const NamedTensors& parameters) {
  std::string what;
  if (!std::isfinite(record.loss)) what = "the loss is " + fixed(record.loss, 0);
  if (!std::isfinite(record.gradient_norm)) {
    what += (what.empty() ? "" : "; ") + std::string("not finite: gradient of ") +
            listed(non_finite_gradients(parameters), 3);
  }
  return what;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const TrainOptions& options)
    : config_(prepare(config)),
      options_(options),
      console_(options.log, options.columns),
      loader_(config_.data, config_.training.seq_len, config_.model.vocab_size),
      decoder_(Decoder::unset(config_.model, config_.attention, seed(config_), resolve_execution(config_.training))),
      optimizer_(decoder_.parameters(), config_.optimizer),
      identity_{config_, loader_.identity(), environment_on(decoder_.device())},
      folder_(config_.logging.run_dir, [this](const std::string& text) { console_.warn(text); }),
      state_(config_.training),
      prefetcher_(loader_, config_.training.batch_size, config_.training.gradient_accumulation, decoder_.device()),
      meter_(config_, decoder_.device()) {
  restore();
  profiler_.emplace(options_.profile, decoder_.device(), state_.step + 1);
  if (state_.step < config_.training.steps) open_run_folder();
  seconds_before_ = state_.seconds;
  start_ = Clock::now();
}

void Trainer::restore() {
  const auto checkpoint =
      load_latest_checkpoint(folder_.path(), [this](const std::string& text) { console_.warn(text); });
  if (!checkpoint) return begin();
  const std::string source = folder_.path().string() + ", step " + std::to_string(checkpoint->step);
  LIGHTHOUSE_CHECK(options_.resume, "'", source,
                   "': the run folder holds a run already; resume it, or start a new one with another "
                   "logging.run_dir");
  identity_.corpus_changes = corpus_changes(folder_.path(), loader_.files());
  state_ = state_from_json(checkpoint->state_json, identity_, source,
                           [this](const std::string& text) { console_.warn(text); });
  load_parameters(decoder_, checkpoint->model);
  optimizer_.load_state(whole_tensors(checkpoint->optimizer));
}

/// The weights of a new run.
void Trainer::begin() {
  if (config_.training.initial_weights.empty()) {
    draw_parameters(decoder_.parameters(), config_.model.init_std, seed(config_));
  } else {
    load_initial_weights(decoder_, config_.training.initial_weights);
  }
}

void Trainer::open_run_folder() {
  NamedTensors model = decoder_.parameters();
  model.insert(model.end(), decoder_.buffers().begin(), decoder_.buffers().end());
  saver_.emplace(folder_, config_, RunSaver::Tensors{std::move(model), whole_ranges(optimizer_.state())}, state_,
                 identity_, console_);
  write_file_durably(folder_.path() / kConfigFile, to_toml(config_));
  write_file_durably(folder_.path() / kRunDescriptionFile, describe_run(decoder_, loader_, identity_));
  record_corpus(folder_.path(), loader_.files());
  if (state_.step == 0) {
    keep_initial_model(folder_.path(), config_.training.initial_weights);
    keep_tokenizer(folder_.path(), config_.data);
  }
  log_.emplace(folder_.path(), state_.step, config_.logging.tensorboard);
}

StepRecord Trainer::step() {
  const NamedTensors& parameters = decoder_.parameters();
  meter_.begin(state_.step + 1);

  // 1. Stage and learning rate follow from the step.
  StepRecord record;
  record.step = state_.step + 1;
  record.stage = stage_at(config_.training, state_.step);
  record.learning_rate = learning_rate_at(config_.optimizer, config_.training.steps, state_.step);

  // 2. Gradients of the mean loss over the step's sequences.
  const std::vector<Batch> batches = prefetcher_.take(state_.next_sequence);
  enter_part(Part::kOther);
  record.loss = accumulate_gradients(batches, attention_mode(record.stage));
  if (options_.on_gradients) options_.on_gradients(state_.step, parameters);

  // 3. What is not finite goes no further than this.
  enter_part(Part::kOptimizer);
  record.gradient_norm = gradient_norm(parameters);
  record.skipped = what_is_not_finite(record, parameters);

  // 4. The update.
  if (record.skipped.empty()) {
    clip_gradients(parameters, record.gradient_norm, config_.optimizer.clip_norm);
    if (saver_) saver_->finish_copy();
    optimizer_.step(record.learning_rate);
  }
  clear_gradients(parameters);

  // 5. The state is that after the step.
  state_.step = record.step;
  state_.next_sequence += sequences_per_step(config_.training);
  state_.tokens += tokens_per_step(config_.training);
  state_.skipped_in_row = record.skipped.empty() ? 0 : state_.skipped_in_row + 1;
  if (std::isfinite(record.loss)) {
    report_switch(record, state_.switch_tracker.add_loss(record.step, record.loss));
  }
  if (record.skipped.empty()) {
    record.spike = state_.spike_detector.add(record.stage, record.loss, record.gradient_norm);
  }

  // 6. What the logs say of it.
  meter_.end(record);
  state_.train_seconds += record.step_seconds;
  state_.seconds = seconds_before_ + session_seconds();
  record.tokens = state_.tokens;
  record.seconds = state_.seconds;
  record.train_seconds = state_.train_seconds;
  return record;
}

void Trainer::explain_out_of_memory(const std::string& where, const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& error) {
    const auto reason = out_of_memory_reason(error);
    if (!reason) throw;
    saver_->note_end();
    throw std::runtime_error(out_of_memory_message(config_, decoder_.device(), where, *reason) +
                             "\nthe same command with other settings goes on from " + saver_->resume_hint());
  }
}

double Trainer::accumulate_gradients(const std::vector<Batch>& batches, AttentionMode mode) {
  int64_t num_targets = 0;
  for (const Batch& batch : batches) num_targets += batch.num_targets;
  at::Tensor sum = at::zeros({}, at::TensorOptions(at::kDouble).device(decoder_.device()));
  for (const Batch& batch : batches) {
    // Every target counts the same, in whatever micro-batch it is.
    const double weight =
        static_cast<double>(batch.num_targets) / static_cast<double>(std::max<int64_t>(num_targets, 1));
    const at::Tensor loss = decoder_.loss(batch.tokens, batch.targets, mode, batch.cu_seqlens);
    (loss * weight).backward();
    sum.add_(loss.detach().to(at::kDouble), weight);
  }
  return sum.item<double>();
}

void Trainer::validate(StepRecord& record) {
  const auto loss = [&](AttentionMode mode) {
    return validation_loss(decoder_, loader_, config_.validation.sequences, mode).loss;
  };
  record.validation = ValidationRecord{loss(AttentionMode::kDense), std::nullopt};
  // After the switch too: less than the dense loss, it says that the weights still lean on stage 1.
  if (has_lighthouse_stage(config_)) record.validation->lighthouse = loss(AttentionMode::kLighthouse);
  state_.last_validation = record.validation;
  report_switch(record, state_.switch_tracker.add_validation(record.step, record.validation->dense,
                                                             record.validation->lighthouse));
}

void Trainer::report_switch(StepRecord& record, const std::string& event) {
  if (event.empty()) return;
  console_.note(event);
  record.switch_report = state_.switch_tracker.report();
}

bool Trainer::is_last_of_stage(int64_t step) const {
  return step == config_.training.steps || step == config_.training.lighthouse_steps;
}

/// Throws when the folder is gone. What somebody removed in it and eval needs is written again.
void Trainer::check_run_folder() {
  folder_.check_in_place();
  const std::filesystem::path config = folder_.path() / kConfigFile;
  if (!std::filesystem::exists(config)) write_file_durably(config, to_toml(config_));
}

void Trainer::log(StepRecord& record) {
  check_run_folder();
  if (!record.skipped.empty()) {
    console_.warn("step " + std::to_string(record.step) + " was not applied: " + record.skipped);
  }
  if (!record.spike.empty()) console_.note("step " + std::to_string(record.step) + ": " + record.spike);
  const bool due = record.step % config_.logging.interval == 0 || record.validation || !record.skipped.empty() ||
                   !record.spike.empty() || record.switch_report || record.parts || is_last_of_stage(record.step);
  if (due) record.peak_memory = meter_.take_peak_memory(record.stage);
  if (due) log_->write(record, [this](const std::string& text) { console_.warn(text); });

  const double now = session_seconds();
  console_.progress({record.step, config_.training.steps, record.stage, stage_name(record.stage, config_.attention),
                     state_.switch_tracker.smoothed_loss(), record.tokens_per_s,
                     time_left_.after_step(now, config_.training.steps - record.step)},
                    now);
}

void Trainer::train_steps() {
  const bool has_validation = loader_.num_validation_sequences() > 0;
  while (state_.step < config_.training.steps && !stop_requested()) {
    StepRecord record;
    profiler_->begin(state_.step + 1);
    explain_out_of_memory("in step " + std::to_string(state_.step + 1) + ", which did not reach the weights",
                          [&] { record = step(); });
    profiler_->end(record.step, console_);
    const int64_t interval = config_.validation.interval;
    if (has_validation && ((interval > 0 && record.step % interval == 0) || is_last_of_stage(record.step))) {
      explain_out_of_memory("in the validation after step " + std::to_string(record.step), [&] { validate(record); });
    }
    log(record);
    if (state_.skipped_in_row >= kMaxSkipped) throw std::runtime_error(divergence_text(record, kMaxSkipped));
    saver_->after_step();
  }
}

TrainResult Trainer::run() {
  std::optional<StopSignals> signals;
  if (options_.handle_signals) signals.emplace();
  for (const std::string& line : opening_lines(config_, loader_, identity_.environment, folder_.path(), state_.step)) {
    console_.note(line);
  }
  if (saver_) {
    try {
      train_steps();
    } catch (const DamagedFile& error) {  // a file that cannot be read, or a token that is none: the steps are kept
      saver_->fail_saved(error);
    } catch (const std::system_error& error) {
      saver_->fail_saved(error);
    } catch (const InvalidArgument& error) {
      saver_->fail_saved(error);
    } catch (...) {
      saver_->note_end();
      throw;
    }
  }
  profiler_->finish(console_);
  console_.end_bar();
  check_run_folder();
  if (saver_) saver_->save_last();
  TrainResult end = result();
  for (const std::string& line : closing_lines(config_, end, StopSignals::received())) console_.note(line);
  return end;
}

TrainResult Trainer::result() const {
  TrainResult result;
  result.run_dir = folder_.path();
  result.step = state_.step;
  result.complete = state_.step == config_.training.steps;
  result.loss = state_.switch_tracker.smoothed_loss();
  result.validation = state_.last_validation;
  result.switch_report = state_.switch_tracker.report();
  result.num_spikes = state_.spike_detector.count();
  result.tokens = state_.tokens;
  result.seconds = state_.seconds;
  result.train_seconds = state_.train_seconds;
  result.speed = meter_.summary();
  return result;
}

bool Trainer::stop_requested() const { return options_.handle_signals && StopSignals::received() != 0; }

double Trainer::session_seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

TrainResult train(const RunConfig& config, const TrainOptions& options) { return Trainer(config, options).run(); }

}  // namespace lighthouse

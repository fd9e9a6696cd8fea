#include "train/trainer.h"

#include <algorithm>
#include <exception>
#include <stdexcept>
#include <utility>

#include "config/schema.h"
#include "io/durable_file.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "train/out_of_memory.h"
#include "train/run_mesh.h"
#include "train/run_texts.h"
#include "train/stop_signal.h"

namespace lighthouse {
namespace {

constexpr int64_t kMaxSkipped = 5;  // one bad batch is bad luck, five in a row are a run that has diverged

}  // namespace

void Trainer::explain_out_of_memory(const std::string& where, const std::function<void()>& body) {
  try {
    body();
  } catch (const std::exception& error) {
    const auto reason = out_of_memory_reason(error);
    if (!reason) throw;
    const std::string message = out_of_memory_message(config_, decoder_.device(), where, *reason);
    saver_->note_end();
    throw std::runtime_error(message + "\nthe same command with other settings goes on from " + saver_->resume_hint());
  }
}

/// With that attention, after `step` steps; empty where a signal came before the end.
std::optional<ValidationLosses> Trainer::validation_losses(AttentionMode mode, int64_t step) {
  if (stop_signal() != 0) return std::nullopt;
  const Stage stage = mode == AttentionMode::kDense ? Stage::kDense : Stage::kLighthouse;
  const std::string what = detail::concat("validation after step ", step, ", ", stage_name(stage, config_.attention));
  const int64_t count = std::min(config_.validation.sequences, loader_.num_validation_sequences());
  const auto received = [&](int64_t read) {
    console_.between(detail::concat(what, ": ", read, " of ", count, " sequences"), session_seconds());
    return options_.handle_signals ? StopSignals::received() : 0;
  };
  ValidationLosses losses = shared_validation_losses(decoder_, loader_, count, mode, mesh_, received);
  stop_signal_ = losses.stop_signal;
  return stop_signal_ == 0 ? std::optional(std::move(losses)) : std::nullopt;
}

/// Where a signal comes before its end, the record is kept for the next start of the run, which logs it again.
void Trainer::validate(StepRecord& record) {
  const std::optional<ValidationLosses> dense = validation_losses(AttentionMode::kDense, record.step);
  // After the switch too: less than the dense loss, it says that the weights still lean on stage 1.
  const bool both = has_lighthouse_stage(config_);
  std::optional<ValidationLosses> lighthouse;
  if (dense && both) lighthouse = validation_losses(AttentionMode::kLighthouse, record.step);
  if (!dense || (both && !lighthouse)) {
    state_.unvalidated = record;
    console_.note(detail::concat("the validation after step ", record.step, " is left to the next start of the run"));
    return;
  }
  for (size_t source = 0; source < record.sources.size(); ++source) {
    record.sources[source].validation_loss = dense->by_source[source];
    if (both) record.sources[source].validation_loss_lighthouse = lighthouse->by_source[source];
  }
  record.validation = ValidationRecord{dense->all, both ? std::optional(lighthouse->all) : std::nullopt};
  state_.last_validation = record.validation;
  report_switch(record, state_.switch_tracker.add_validation(record.step, record.validation->dense,
                                                             record.validation->lighthouse));
}

void Trainer::report_switch(StepRecord& record, const std::string& event) {
  if (event.empty()) return;
  console_.note(event);
  record.switch_report = state_.switch_tracker.report();
}

/// Throws when the folder is gone. What somebody removed in it and eval needs is written again.
void Trainer::check_run_folder() {
  folder_->check_in_place();
  if (!mesh_.is_first()) return;
  const std::filesystem::path config = folder_->path() / kConfigFile;
  if (!std::filesystem::exists(config)) write_file_durably(config, to_toml(config_));
}

void Trainer::log(StepRecord& record) {
  check_run_folder();
  if (!record.skipped.empty()) {
    console_.warn("step " + std::to_string(record.step) + " was not applied: " + record.skipped);
  }
  if (!record.spike.empty()) console_.note("step " + std::to_string(record.step) + ": " + record.spike);
  const bool due = record.step % config_.logging.interval == 0 || record.validation || !record.skipped.empty() ||
                   !record.spike.empty() || record.switch_report || record.parts ||
                   is_last_of_stage(config_.training, record.step);
  if (due) record.peak_memory = meter_.take_peak_memory(record.stage);
  if (due && log_) log_->write(record, [this](const std::string& text) { console_.warn(text); });

  if (record.ranks) ranks_text_ = text_of(*record.ranks);
  const double now = session_seconds();
  console_.progress({record.step, config_.training.steps, record.stage, stage_name(record.stage, config_.attention),
                     state_.switch_tracker.smoothed_loss(), record.tokens_per_s,
                     time_left_.after_step(now, config_.training.steps - record.step), ranks_text_},
                    now);
}

/// Of the next step, or of the last one, whose validation a signal has cut short.
StepRecord Trainer::next_record() {
  if (state_.unvalidated) return *std::exchange(state_.unvalidated, std::nullopt);
  StepRecord record;
  profiler_->begin(state_.step + 1);
  explain_out_of_memory("in step " + std::to_string(state_.step + 1) + ", which did not reach the weights",
                        [&] { record = step(); });
  profiler_->end(record.step, console_);
  return record;
}

void Trainer::train_steps() {
  const bool has_validation = loader_.num_validation_sequences() > 0;
  while (has_work() && stop_signal() == 0) {
    StepRecord record = next_record();
    if (has_validation && is_validated(config_, record.step)) {
      explain_out_of_memory("in the validation after step " + std::to_string(record.step), [&] { validate(record); });
    }
    log(record);
    if (state_.unvalidated) return;
    if (state_.skipped_in_row >= kMaxSkipped) throw std::runtime_error(divergence_text(record, kMaxSkipped));
    saver_->after_step();
  }
}

void Trainer::train_run() {
  const auto save_and_fail = [&](const std::exception& error) {
    if (mesh_.size() == 1 || all_failed_) saver_->fail_saved(error);
    saver_->note_end();
    throw;
  };
  try {
    train_steps();
  } catch (const DamagedFile& error) {  // a file that cannot be read, or a token that is none: the steps are kept
    save_and_fail(error);
  } catch (const std::system_error& error) {
    save_and_fail(error);
  } catch (const InvalidArgument& error) {
    save_and_fail(error);
  } catch (...) {
    saver_->note_end();
    throw;
  }
}

TrainResult Trainer::run() {
  std::optional<StopSignals> signals;
  if (options_.handle_signals) signals.emplace();
  for (const std::string& line :
       opening_lines(config_, loader_, identity_.environment, config_.logging.run_dir, state_.step)) {
    console_.note(line);
  }
  if (const std::string warning = selection_warning(config_); !warning.empty()) console_.warn(warning);
  if (mesh_.size() > 1) {
    console_.note(mesh_text(mesh_, decoder_.token_spans(config_.training.seq_len, {}, mesh_.context_size())));
  }
  if (has_work()) train_run();
  profiler_->finish(console_);
  console_.end_bar();
  check_run_folder();
  if (saver_) saver_->save_last();
  TrainResult end = result();
  for (const std::string& line : closing_lines(config_, end, stop_signal())) console_.note(line);
  return end;
}

TrainResult Trainer::result() const {
  TrainResult result;
  result.run_dir = config_.logging.run_dir;
  result.step = state_.step;
  result.complete = !has_work();
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

/// Ranks stop where all know of it.
int Trainer::stop_signal() const {
  if (!options_.handle_signals) return 0;
  return mesh_.size() == 1 ? StopSignals::received() : stop_signal_;
}

double Trainer::session_seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

TrainResult train(const RunConfig& config, const TrainOptions& options) { return Trainer(config, options).run(); }

}  // namespace lighthouse

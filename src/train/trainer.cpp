#include "train/trainer.h"

#include <exception>
#include <stdexcept>

#include "config/schema.h"
#include "io/durable_file.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "lighthouse/check.h"
#include "model/model_io.h"
#include "parallel/world.h"
#include "train/checkpoint.h"
#include "train/checkpoint_files.h"
#include "train/corpus_record.h"
#include "train/device.h"
#include "train/environment.h"
#include "train/initial_weights.h"
#include "train/out_of_memory.h"
#include "train/prepared_corpus.h"
#include "train/run_description.h"
#include "train/run_mesh.h"
#include "train/run_texts.h"
#include "train/shared_validation.h"
#include "train/stop_signal.h"
#include "train/text.h"

namespace lighthouse {
namespace {

constexpr int64_t kMaxSkipped = 5;  // one bad batch is bad luck, five in a row are a run that has diverged

int64_t local_rank(const World* world) { return world == nullptr ? 0 : world->launch().local_rank; }

RunConfig prepare(const RunConfig& config, const World* world) {
  validate(config);
  check_vocabulary(config.data, config.model.vocab_size);
  set_threads(config.training, world);
  use_device(resolve_device(config.training.device, local_rank(world)));
  return config;
}

uint64_t seed(const RunConfig& config) { return static_cast<uint64_t>(config.training.seed); }

/// Pieces that any number of ranks can own; alone and without need for their bits: none smaller than a parameter.
int64_t piece_elements(const RunConfig& config, const Mesh& mesh) {
  return mesh.size() == 1 && config.training.accumulation == Accumulation::kSequence ? kWholeParameters
                                                                                     : kPieceElements;
}

std::vector<at::Tensor> tensors_of(const NamedTensors& named) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : named) tensors.push_back(tensor);
  return tensors;
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const TrainOptions& options) try
    : config_(prepare(config, options.world)),
      options_(options),
      mesh_(mesh_of(config_, options.world)),
      console_(mesh_.is_first() ? options.log : nullptr, options.columns),
      loader_(config_.data, config_.training.seq_len, config_.model.vocab_size, /*split_len=*/0,
              config_.training.batch_size),
      decoder_(Decoder::unset(config_.model, config_.attention, seed(config_),
                              resolve_execution(config_.training, local_rank(options.world)))),
      identity_{config_, loader_.identity(), environment_on(decoder_.device()), mesh_.data_size(),
                mesh_.context_size()},
      state_(config_.training),
      prefetcher_(
          loader_, config_.training.batch_size, config_.training.gradient_accumulation, decoder_.device(),
          mesh_.data_rank(), mesh_.data_size(),
          mesh_.context_size() == 1 ? std::function<Batch(Batch)>()
                                    : [this](Batch whole) { return share_of_row(std::move(whole)); }),
      meter_(config_, decoder_.device(), mesh_.size()) {
  decoder_.token_spans(config_.training.seq_len, {}, mesh_.context_size());  // or it says what does not fit
  if (mesh_.is_first()) take_run_folder(RunFolderUse::kOwn);
  connect();
  if (!mesh_.is_first()) take_run_folder(RunFolderUse::kShare);  // which is there now
  restore();
  profiler_.emplace(mesh_.is_first() ? options_.profile : ProfileOptions(), decoder_.device(), state_.step + 1);
  if (has_steps()) open_run_folder();
  seconds_before_ = state_.seconds;
  start_ = Clock::now();
} catch (const Disagreement&) {
  throw;
} catch (const std::exception& error) {
  if (options.world != nullptr) options.world->abandon(first_line(error.what()));
}

void Trainer::take_run_folder(RunFolderUse use) {
  folder_.emplace(
      config_.logging.run_dir, [this](const std::string& text) { console_.warn(text); }, use);
}

/// Nothing is exchanged before all ranks have come this far with the same.
void Trainer::connect() {
  if (World* world = mesh_.world()) {
    world->agree("the program", program_text(identity_.environment));
    world->agree("the configuration", to_toml(config_));
    world->agree("the corpus", identity_.corpus.fingerprint + "\n" + identity_.corpus.content);
    mesh_.connect();
  }
  gradients_.emplace(tensors_of(decoder_.parameters()), mesh_.all(), piece_elements(config_, mesh_));
  optimizer_.emplace(decoder_.parameters(), config_.optimizer, gradients_->owned());
  exchange_.emplace(mesh_, *gradients_, config_.training.gradient_accumulation, decoder_.device(),
                    /*one_by_one=*/!config_.data.mixture.empty());
}

Batch Trainer::share_of_row(Batch whole) const {
  std::vector<Span> spans = decoder_.token_spans(whole.tokens.size(1), whole.cu_seqlens, mesh_.context_size());
  return share_of(whole, std::move(spans), mesh_.context_rank());
}

std::optional<Checkpoint> Trainer::load_newest() {
  const std::filesystem::path& run_dir = folder_->path();
  const auto warn = [this](const std::string& text) { console_.warn(text); };
  try {
    return load_latest_checkpoint(run_dir, warn, checkpoint_ranks(mesh_), optimizer_->ranges());
  } catch (const InvalidArgument&) {  // moments of another model, of which its configuration says more
    const std::filesystem::path newest = list_checkpoints(run_dir).front();
    state_from_json(read_text_file(newest / kStateFile), identity_, newest.string(), [](const std::string&) {});
    throw;
  }
}

void Trainer::restore() {
  const std::filesystem::path& run_dir = folder_->path();
  const std::optional<Checkpoint> checkpoint = load_newest();
  if (!checkpoint) return begin();
  const std::string source = run_dir.string() + ", step " + std::to_string(checkpoint->step);
  LIGHTHOUSE_CHECK(options_.resume, "'", source,
                   "': the run folder holds a run already; resume it, or start a new one with another "
                   "logging.run_dir");
  identity_.corpus_changes = corpus_changes(run_dir, loader_.files());
  state_ = state_from_json(checkpoint->state_json, identity_, source,
                           [this](const std::string& text) { console_.warn(text); });
  load_parameters(decoder_, checkpoint->model);
  optimizer_->load_ranges(checkpoint->optimizer);
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
  std::vector<TensorRange> moments = mesh_.size() == 1 ? whole_ranges(optimizer_->state()) : optimizer_->ranges();
  if (!mesh_.is_first()) moments.erase(moments.begin());  // "step" is the first rank's to save
  saver_.emplace(*folder_, config_, RunSaver::Tensors{std::move(model), std::move(moments)}, state_, identity_,
                 console_, checkpoint_ranks(mesh_));
  if (!mesh_.is_first()) return;
  const std::filesystem::path& run_dir = folder_->path();
  write_file_durably(run_dir / kConfigFile, to_toml(config_));
  write_file_durably(run_dir / kRunDescriptionFile, describe_run(decoder_, loader_, identity_));
  record_corpus(run_dir, loader_.files());
  if (state_.step == 0) {
    keep_initial_model(run_dir, config_.training.initial_weights);
    keep_tokenizer(run_dir, config_.data);
  }
  log_.emplace(run_dir, state_.step, config_.logging.tensorboard);
}

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

void Trainer::validate(StepRecord& record) {
  const auto loss = [&](AttentionMode mode) {
    return shared_validation_loss(decoder_, loader_, config_.validation.sequences, mode, mesh_);
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
                   !record.spike.empty() || record.switch_report || record.parts || is_last_of_stage(record.step);
  if (due) record.peak_memory = meter_.take_peak_memory(record.stage);
  if (due && log_) log_->write(record, [this](const std::string& text) { console_.warn(text); });

  if (record.ranks) ranks_text_ = text_of(*record.ranks);
  const double now = session_seconds();
  console_.progress({record.step, config_.training.steps, record.stage, stage_name(record.stage, config_.attention),
                     state_.switch_tracker.smoothed_loss(), record.tokens_per_s,
                     time_left_.after_step(now, config_.training.steps - record.step), ranks_text_},
                    now);
}

void Trainer::train_steps() {
  const bool has_validation = loader_.num_validation_sequences() > 0;
  while (has_steps() && stop_signal() == 0) {
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
  if (has_steps()) train_run();
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

/// Ranks stop where all know of it.
int Trainer::stop_signal() const {
  if (!options_.handle_signals) return 0;
  return mesh_.size() == 1 ? StopSignals::received() : stop_signal_;
}

double Trainer::session_seconds() const { return std::chrono::duration<double>(Clock::now() - start_).count(); }

TrainResult train(const RunConfig& config, const TrainOptions& options) { return Trainer(config, options).run(); }

}  // namespace lighthouse

// How a Trainer opens its run: nothing but the folder is written before all of it, on all ranks, fits together.
#include <chrono>
#include <exception>
#include <filesystem>
#include <fstream>
#include <optional>
#include <thread>

#include "config/schema.h"
#include "io/durable_file.h"
#include "io/input_file.h"
#include "io/posix.h"
#include "lighthouse/check.h"
#include "model/model_io.h"
#include "parallel/world.h"
#include "train/checkpoint.h"
#include "train/checkpoint_files.h"
#include "train/corpus_record.h"
#include "train/device.h"
#include "train/environment.h"
#include "train/host_transfer.h"
#include "train/initial_weights.h"
#include "train/prepared_corpus.h"
#include "train/run_description.h"
#include "train/run_mesh.h"
#include "train/text.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {

int64_t local_rank(const World* world) { return world == nullptr ? 0 : world->launch().local_rank; }

RunConfig prepare(const RunConfig& config, const TrainOptions& options) {
  const World* const world = options.world;
  validate(config);
  check_changeable(options.change);
  check_vocabulary(config.data, config.model.vocab_size);
  set_threads(config.training, world);
  const at::Device device = resolve_device(config.training.device, local_rank(world));
  use_device(device);
  if (config.training.offload_weights) check_weight_room(num_parameters(config.model), device);
  return config;
}

uint64_t seed(const RunConfig& config) { return static_cast<uint64_t>(config.training.seed); }

std::string lines_of(const std::vector<std::string>& words) {
  std::string lines;
  for (const std::string& each : words) lines += each + '\n';
  return lines;
}

/// Pieces that any number of ranks can own; alone and without need for their bits: none smaller than a parameter.
int64_t piece_elements(const RunConfig& config, const Mesh& mesh) {
  return mesh.size() == 1 && config.training.accumulation == Accumulation::kSequence ? kWholeParameters
                                                                                     : kPieceElements;
}

/// Throws Disagreement where a rank does not see what the first has just written, also later, as a file system that
/// machines share may show it: every rank would write its part of a checkpoint into a folder of its own.
void check_one_folder(World& world, const RunFolder& folder, std::chrono::seconds timeout) {
  std::optional<Temporary> mark;
  if (world.rank() == 0) mark = create_temporary_file(folder.path());
  const auto remove_mark = [&] {
    std::error_code stays;  // until the next start
    if (mark) std::filesystem::remove(mark->path, stays);
  };
  try {
    const std::string name = world.conclude("", [&](const auto&) { return mark->path.filename().string(); });
    const auto is_there = [&] { return std::ifstream(folder.path() / name).good(); };
    const auto patience = std::min<std::chrono::milliseconds>(std::chrono::seconds(10), timeout / 2);
    const auto end = std::chrono::steady_clock::now() + patience;
    while (!is_there() && std::chrono::steady_clock::now() < end) {
      std::this_thread::sleep_for(std::chrono::milliseconds(50));
    }
    world.agree("logging.run_dir", is_there() ? "a folder that all see"
                                              : "'" + folder.path().string() + "', another folder than the first's");
  } catch (...) {
    remove_mark();
    throw;
  }
  remove_mark();
}

std::vector<at::Tensor> tensors_of(const NamedTensors& named) {
  std::vector<at::Tensor> tensors;
  for (const auto& [name, tensor] : named) tensors.push_back(tensor);
  return tensors;
}

/// The matrices on the host, with a count of their own of what is written to them: what products read is of theirs.
std::vector<at::Tensor> matrices_on_host(const Decoder& decoder) {
  std::vector<at::Tensor> matrices = tensors_of(decoder.values());
  const std::vector<at::Tensor> casts = decoder.casts();
  for (size_t i = 0; i < matrices.size(); ++i) {
    matrices[i] = casts[i].defined() ? matrices[i].variable_data() : at::Tensor();
  }
  return matrices;
}

/// What there is of each parameter on the device: all of it, or with its matrices on the host casts of these and the
/// vectors.
std::vector<std::vector<at::Tensor>> on_device(const Decoder& decoder, bool offload_weights) {
  std::vector<at::Tensor> parameters = tensors_of(decoder.parameters());
  if (!offload_weights) return {parameters};
  std::vector<at::Tensor> casts = decoder.casts();
  for (size_t i = 0; i < casts.size(); ++i) {
    if (casts[i].defined()) parameters[i].reset();
  }
  return {std::move(casts), std::move(parameters)};
}

}  // namespace

Trainer::Trainer(const RunConfig& config, const TrainOptions& options) try
    : config_(prepare(config, options)),
      options_(options),
      mesh_(mesh_of(config_, options.world)),
      console_(mesh_.is_first() ? options.log : nullptr, options.columns),
      loader_(config_.data, config_.training.seq_len, config_.model.vocab_size, /*split_len=*/0,
              config_.training.batch_size),
      decoder_(Decoder::unset(config_.model, config_.attention, seed(config_),
                              resolve_execution(config_, local_rank(options.world)))),
      identity_{config_,           loader_.identity(),   environment_on(decoder_.device()),
                mesh_.data_size(), mesh_.context_size(), /*corpus_changes=*/"",
                options.change},
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
  if (World* world = mesh_.world()) check_one_folder(*world, *folder_, std::chrono::seconds(config_.parallel.timeout));
  const bool resumes = restore();
  if (has_work()) make_saver();  // which wants room on the disk, before weights take a minute
  if (!resumes) begin();
  profiler_.emplace(mesh_.is_first() ? options_.profile : ProfileOptions(), decoder_.device(), state_.step + 1);
  if (has_work()) open_run_folder();
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
    world->agree("the keys that change", lines_of(options_.change));
    world->agree("the corpus", identity_.corpus.fingerprint + "\n" + identity_.corpus.content);
    mesh_.connect();
  }
  gradients_.emplace(tensors_of(decoder_.parameters()), mesh_.all(), piece_elements(config_, mesh_),
                     options_.bucket_elements);
  updated_ = on_device(decoder_, config_.training.offload_weights);
  open_libraries(decoder_.device(), resolve_precision(config_.training.precision));
  optimizer_.emplace(decoder_.parameters(), config_.optimizer, gradients_->owned(),
                     config_.training.offload_optimizer ? MomentPlace::kHost : MomentPlace::kDevice,
                     config_.training.offload_weights ? std::optional(HostWeights{decoder_.values(), decoder_.casts()})
                                                      : std::nullopt);
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
    return load_latest_checkpoint(run_dir, warn, checkpoint_ranks(mesh_), optimizer_->ranges(), decoder_.values());
  } catch (const InvalidArgument&) {  // moments of another model, of which its configuration says more
    const std::filesystem::path newest = list_checkpoints(run_dir).front();
    state_from_json(read_text_file(newest / kStateFile), identity_, newest.string(), [](const std::string&) {});
    throw;
  }
}

bool Trainer::restore() {
  const std::filesystem::path& run_dir = folder_->path();
  const std::optional<Checkpoint> checkpoint = load_newest();
  if (!checkpoint) {
    if (!options_.change.empty()) console_.warn("the run begins with this start, so that no key of it changes");
    return false;
  }
  const std::string source = run_dir.string() + ", step " + std::to_string(checkpoint->step);
  LIGHTHOUSE_CHECK(options_.resume, "'", source,
                   "': the run folder holds a run already; resume it, or start a new one with another "
                   "logging.run_dir");
  if (change_data(options_.change)) check_tokenizer(config_.data, run_dir / kTokenizerFolder, config_.model.vocab_size);
  identity_.corpus_changes = corpus_changes(run_dir, loader_.files());
  state_ = state_from_json(checkpoint->state_json, identity_, source,
                           [this](const std::string& text) { console_.warn(text); });
  load_parameters(decoder_, checkpoint->model);
  optimizer_->load_ranges(checkpoint->optimizer);
  return true;
}

/// The weights of a new run.
void Trainer::begin() {
  if (config_.training.initial_weights.empty()) {
    draw_parameters(decoder_.values(), config_.model.init_std, seed(config_));
  } else {
    check_tokenizer(config_.data, config_.training.initial_weights, config_.model.vocab_size);
    load_initial_weights(decoder_, config_.training.initial_weights, config_.training.initial_rope);
  }
}

void Trainer::make_saver() {
  NamedTensors model = decoder_.values();
  model.insert(model.end(), decoder_.buffers().begin(), decoder_.buffers().end());
  std::vector<TensorRange> moments = mesh_.size() == 1 ? whole_ranges(optimizer_->state()) : optimizer_->ranges();
  if (!mesh_.is_first()) moments.erase(moments.begin());  // "step" is the first rank's to save
  RunSaver::Tensors tensors{std::move(model), std::move(moments)};
  if (config_.training.offload_weights && mesh_.size() > 1) {  // a rank has updated those that it owns
    tensors.complete = [this, matrices = matrices_on_host(decoder_)] { gradients_->spread(matrices); };
  }
  saver_.emplace(*folder_, config_, tensors, state_, identity_, console_, checkpoint_ranks(mesh_));
}

void Trainer::open_run_folder() {
  if (!mesh_.is_first()) return;
  const std::filesystem::path& run_dir = folder_->path();
  write_file_durably(run_dir / kConfigFile, to_toml(config_));
  write_file_durably(run_dir / kRunDescriptionFile, describe_run(decoder_, loader_, identity_, state_.changes));
  record_corpus(run_dir, loader_.files());
  if (state_.step == 0) {
    keep_initial_model(run_dir, config_.training.initial_weights);
    keep_tokenizer(run_dir, config_.data);
  }
  log_.emplace(run_dir, state_.unvalidated ? state_.step - 1 : state_.step, config_.logging.tensorboard);
}

}  // namespace lighthouse

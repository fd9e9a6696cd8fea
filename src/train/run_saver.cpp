#include "train/run_saver.h"

#include <chrono>
#include <stdexcept>

#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "train/disk_room.h"
#include "train/out_of_memory.h"
#include "train/text.h"

namespace lighthouse {
namespace {

/// "", or why `body` could not be done: a saver's thread may fail like any other code.
template <typename Body>
std::string problem_of(const Body& body) {
  try {
    body();
    return "";
  } catch (const std::exception& error) {
    return words_of(error);
  }
}

/// The model as transformers knows it, which checkpoints of several ranks hold it for; "" where it does not.
std::string model_config_of(const RunConfig& config) {
  try {
    return huggingface_config(config.model, "float32", config.training.seq_len).dump(2) + "\n";
  } catch (const InvalidArgument&) {
    return "";
  }
}

}  // namespace

RunSaver::RunSaver(const RunFolder& folder, const RunConfig& config, const Tensors& tensors, const TrainState& state,
                   const RunIdentity& identity, Console& console, const CheckpointRanks& ranks)
    : folder_(folder),
      config_(config.checkpoint),
      state_(state),
      identity_(identity),
      console_(console),
      complete_(tensors.complete),
      saved_step_(state.step),
      starts_unvalidated_(state.unvalidated) {
  const auto make_saver = [&] {
    saver_.emplace(folder.path(), config_, tensors.model, tensors.optimizer, ranks, model_config_of(config));
    return std::to_string(saver_->bytes());
  };
  const auto check = [&](const std::vector<std::string>& bytes_of_ranks) {
    int64_t bytes = 0;
    for (const std::string& of_rank : bytes_of_ranks) bytes += std::stoll(of_rank);
    return check_room(folder, bytes, config_, config.training.steps - state.step);
  };
  const std::string tight = together(ranks, make_saver, check);
  if (!tight.empty()) console.warn(tight);
}

void RunSaver::after_step() {
  if (!saver_->under_way()) note_end();
  if (config_.interval > 0 && state_.step % config_.interval == 0) save();
}

void RunSaver::save() {
  // One at a time, or a slow disk would leave the run further and further behind.
  using Clock = std::chrono::steady_clock;
  const auto before = Clock::now();
  note_end();
  const double waited = std::chrono::duration<double>(Clock::now() - before).count();
  if (waited >= 1) {
    console_.warn(detail::concat("training waited ", duration(waited), " for the checkpoint of step ", saver_->step(),
                                 " to be written; a longer checkpoint.interval saves that"));
  }
  start();
}

void RunSaver::start() {
  if (complete_) complete_();
  std::string state;  // empty, it cannot be saved, which the other ranks hear of
  const std::string problem = problem_of([&] { state = state_to_json(state_, identity_); });
  if (!problem.empty()) console_.warn(detail::concat("step ", state_.step, " has no state to save: ", problem));
  saver_->start(state_.step, std::move(state));
}

std::string RunSaver::end() {
  if (!saver_->pending()) return "";
  std::string undone;
  const std::string problem = problem_of([&] { undone = saver_->take_end(); });
  if (problem.empty()) {
    saved_step_ = saver_->step();
    starts_unvalidated_ = false;
  }
  if (!undone.empty()) console_.warn(detail::concat("step ", saver_->step(), " is saved, but ", undone));
  return problem;
}

void RunSaver::note_end() {
  const std::string problem = end();
  if (!problem.empty()) console_.warn(detail::concat("step ", saver_->step(), " is not saved: ", problem));
}

void RunSaver::save_last() {
  end();
  folder_.check_in_place();
  if (saved_step_ == state_.step && !starts_unvalidated_) return;
  start();
  const std::string problem = end();
  if (problem.empty()) return;
  throw std::runtime_error(detail::concat(
      "the checkpoint of step ", state_.step, " could not be saved in '", folder_.path().string(), "': ", problem,
      "; make room there and run the same command again: it goes on from ", resume_hint()));
}

void RunSaver::fail_saved(const std::exception& error) {
  note_end();
  if (state_.step <= saved_step_) throw;  // no step is lost: the error says it all
  const std::string what = error.what();
  try {
    save_last();
  } catch (const std::exception& unsaved) {
    throw std::runtime_error(what + "; and " + unsaved.what());
  }
  throw std::runtime_error(what + "; training stopped, the same command goes on from " + resume_hint());
}

std::string RunSaver::resume_hint() const {
  return saved_step_ > 0 ? detail::concat("step ", saved_step_) : "the start";
}

}  // namespace lighthouse

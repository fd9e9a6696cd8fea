#include "train/run_saver.h"

#include <c10/util/Exception.h>

#include <chrono>
#include <stdexcept>

#include "lighthouse/check.h"
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
    if (const auto memory = out_of_memory_reason(error)) return "out of memory: " + *memory;
    const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
    return of_torch == nullptr ? error.what() : of_torch->what_without_backtrace();
  }
}

}  // namespace

RunSaver::RunSaver(const RunFolder& folder, const RunConfig& config, const Tensors& tensors, const TrainState& state,
                   const RunIdentity& identity, Console& console)
    : folder_(folder),
      config_(config.checkpoint),
      state_(state),
      identity_(identity),
      console_(console),
      saver_(folder.path(), config.checkpoint, tensors.model, tensors.optimizer),
      saved_step_(state.step) {
  const int64_t bytes = total_bytes(tensors.model) + total_bytes(tensors.optimizer);
  const std::string tight = check_room(folder, bytes, config.checkpoint, config.training.steps - state.step);
  if (!tight.empty()) console.warn(tight);
}

void RunSaver::after_step() {
  if (!saver_.under_way()) note_end();
  if (config_.interval > 0 && state_.step % config_.interval == 0) save();
}

void RunSaver::save() {
  // One at a time, or a slow disk would leave the run further and further behind.
  using Clock = std::chrono::steady_clock;
  const auto before = Clock::now();
  note_end();
  const double waited = std::chrono::duration<double>(Clock::now() - before).count();
  if (waited >= 1) {
    console_.warn(detail::concat("training waited ", duration(waited), " for the checkpoint of step ", saver_.step(),
                                 " to be written; a longer checkpoint.interval saves that"));
  }
  report(start());
}

std::string RunSaver::start() {
  return problem_of([&] { saver_.start(state_.step, state_to_json(state_, identity_)); });
}

std::string RunSaver::end() {
  if (!saver_.pending()) return "";
  return problem_of([&] {
    saver_.take_end();
    saved_step_ = saver_.step();
  });
}

void RunSaver::report(const std::string& problem) {
  if (!problem.empty()) console_.warn(detail::concat("step ", saver_.step(), " is not saved: ", problem));
}

void RunSaver::note_end() { report(end()); }

void RunSaver::save_last() {
  end();
  folder_.check_in_place();
  if (saved_step_ == state_.step) return;
  std::string problem = start();
  if (problem.empty()) problem = end();
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

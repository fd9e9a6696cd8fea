// A command that several processes of one launcher run together.
#pragma once

#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>

#include "cli/commands.h"
#include "config/run_config.h"
#include "parallel/world.h"

namespace lighthouse::cli {

/// What this process begins with.
struct RankStart {
  RunConfig config;
  std::unique_ptr<World> world;  ///< null: it is alone

  bool is_speaker() const { return world == nullptr || world->is_speaker(); }
};

/// `load`'s configuration, and all processes of the launcher, if there is one (parallel/launch.h), in one world. Where
/// `load` throws on one of them, all end. Throws InvalidArgument for what the launcher has set; UsageError where the
/// first process cannot be found; Silenced for what the first process says.
RankStart start_ranks(const std::function<RunConfig()>& load);

/// A start that fails before there is a configuration: throws `error`, or Silenced on all ranks but the first. The
/// others are told of it.
[[noreturn]] void refuse_start(const std::exception_ptr& error);

/// Runs `body`, whose errors the first rank alone says: it knows of those of the others.
template <typename Body>
void say_once(const RankStart& start, const Body& body) {
  if (start.is_speaker()) return body();
  try {
    body();
  } catch (...) {
    throw Silenced{std::current_exception()};
  }
}

/// Writes what this rank's library recorded of its collectives into the run folder, and says where: a line of a
/// message, or nothing where that fails.
std::string save_recorded_collectives(const RankStart& start);

/// Runs `body`, whose errors say which rank they are of, and are silent where all is said.
template <typename Body>
void say_with_rank(const RankStart& start, const Body& body) {
  if (start.world == nullptr) return body();
  try {
    body();
  } catch (const RankFailure& error) {
    if (start.world->has_said_failure()) throw Silenced{std::current_exception()};
    throw std::runtime_error("rank " + std::to_string(start.world->rank()) + ": " + error.what() +
                             save_recorded_collectives(start));
  } catch (const std::exception& error) {
    throw std::runtime_error("rank " + std::to_string(start.world->rank()) + ": " + error.what());
  }
}

}  // namespace lighthouse::cli

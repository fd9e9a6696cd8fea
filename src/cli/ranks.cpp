#include "cli/ranks.h"

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <optional>
#include <stdexcept>

#include "cli/held_signals.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "parallel/launch.h"
#include "train/device.h"

namespace lighthouse::cli {
namespace {

std::function<void(const std::string&)> say_waiting(const Launch& launch) {
  return [rank = launch.rank](const std::string& text) {
    std::cerr << printable("lighthouse train: rank " + std::to_string(rank) + ": " + text + "\n") << std::flush;
  };
}

WorldOptions options_of(const RunConfig& config, const Launch& launch) {
  WorldOptions options;
  options.device = resolve_device(config.training.device, launch.local_rank);
  options.timeout = std::chrono::seconds(config.parallel.timeout);
  options.patience = std::min(options.patience, options.timeout);
  options.say_failure = [rank = launch.rank](const std::string& failure) {
    std::cerr << "lighthouse train: rank " << rank << ": " << failure << std::endl;
  };
  options.say_waiting = say_waiting(launch);
  return options;
}

/// None where this process is alone.
std::optional<Launch> launch_of_several() {
  try {
    std::optional<Launch> launch = launch_from_environment();
    return launch && launch->world_size > 1 ? launch : std::nullopt;
  } catch (const InvalidArgument&) {
    if (!is_found_by_first([](const char* name) -> const char* { return std::getenv(name); })) throw;
    throw Silenced{std::current_exception()};
  }
}

/// Whether another process is sure to say why this one lost the world: the first of all, when it is on this machine, or
/// the first of this machine.
bool is_spoken_for(const Launch& launch) {
  if (launch.rank == 0) return false;
  if (launch.address == "localhost" || launch.address.starts_with("127.") || launch.address == "::1") return true;
  return launch.local_rank != 0 && launch.local_rank != launch.rank;
}

/// A port that is taken and an address that does not answer are wrong usage.
std::unique_ptr<World> join(const Launch& launch, const WorldOptions& options) {
  try {
    return std::make_unique<World>(launch, options);
  } catch (const StartFailure& error) {
    const UsageError wrong(first_line(error.what()));
    if (!error.is_mine()) throw Silenced{std::make_exception_ptr(wrong)};
    throw wrong;
  } catch (const std::runtime_error& error) {  // the store was there, and went
    const UsageError wrong(first_line(error.what()));
    if (is_spoken_for(launch)) throw Silenced{std::make_exception_ptr(wrong)};
    throw wrong;
  }
}

std::string first_line_of(const std::exception_ptr& error) {
  try {
    std::rethrow_exception(error);
  } catch (const std::exception& said) {
    return first_line(said.what());
  }
}

/// Ends all ranks because of `error` of this one. Where no others come it is this one's to say.
[[noreturn]] void end_all(const Launch& launch, const std::exception_ptr& error) {
  WorldOptions options;
  options.patience = std::chrono::seconds(30);  // who starts that much later hears that this one is missing
  std::unique_ptr<World> world;
  try {
    world = std::make_unique<World>(launch, options);
  } catch (const std::runtime_error&) {
    std::rethrow_exception(error);
  }
  world->abandon(first_line_of(error));
  if (world->is_speaker()) std::rethrow_exception(error);
  throw Silenced{error};
}

}  // namespace

RankStart start_ranks(const std::function<RunConfig()>& load) {
  const std::optional<Launch> launch = launch_of_several();
  if (!launch) return {load(), nullptr};
  end_at_signals(launch->rank == 0);
  RankStart start;
  WorldOptions options;
  try {
    start.config = load();
    options = options_of(start.config, *launch);
  } catch (const std::exception&) {
    end_all(*launch, std::current_exception());
  }
  start.world = join(*launch, options);
  return start;
}

void refuse_start(const std::exception_ptr& error) {
  const std::optional<Launch> launch = launch_of_several();
  if (!launch) std::rethrow_exception(error);
  end_at_signals(launch->rank == 0);
  end_all(*launch, error);
}

std::string save_recorded_collectives(const RankStart& start) {
  const std::filesystem::path file = std::filesystem::path(start.config.logging.run_dir) /
                                     ("collectives-rank-" + std::to_string(start.world->rank()) + ".json");
  std::ofstream stream(file);
  stream << start.world->recorded_collectives() << '\n' << std::flush;
  return stream.good() ? "\n  its last collectives are in " + file.string() : "";
}

}  // namespace lighthouse::cli

#include "cli/ranks.h"

#include <chrono>
#include <optional>
#include <stdexcept>

#include "parallel/launch.h"
#include "train/device.h"

namespace lighthouse::cli {
namespace {

WorldOptions options_of(const RunConfig& config, const Launch& launch) {
  WorldOptions options;
  options.device = resolve_device(config.training.device, launch.local_rank);
  options.timeout = std::chrono::seconds(config.parallel.timeout);
  return options;
}

/// A port that is taken and an address that does not answer are wrong usage.
std::unique_ptr<World> join(const Launch& launch, const WorldOptions& options) {
  try {
    return std::make_unique<World>(launch, options);
  } catch (const std::runtime_error& error) {
    throw UsageError(first_line(error.what()));
  }
}

}  // namespace

RankStart start_ranks(const std::function<RunConfig()>& load) {
  const std::optional<Launch> launch = launch_from_environment();
  if (!launch || launch->world_size == 1) return {load(), nullptr};
  RankStart start;
  WorldOptions options;
  std::exception_ptr error;
  std::string why;
  try {
    start.config = load();
    options = options_of(start.config, *launch);
  } catch (const std::exception& failure) {
    error = std::current_exception();
    why = first_line(failure.what());
  }
  start.world = join(*launch, options);
  if (!error) return start;
  start.world->abandon(why);
  say_once(start, [&] { std::rethrow_exception(error); });
  return start;
}

}  // namespace lighthouse::cli

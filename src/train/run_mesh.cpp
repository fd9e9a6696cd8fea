#include "train/run_mesh.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cstdlib>

#include "config/schema.h"
#include "lighthouse/check.h"

namespace lighthouse {

Mesh mesh_of(const RunConfig& config, World* world) {
  const ParallelConfig& parallel = config.parallel;
  const int64_t started = world == nullptr ? 1 : world->size();
  const int64_t data = parallel.data > 0 ? parallel.data : std::max<int64_t>(started / parallel.context, 1);
  const int64_t wanted = data * parallel.context;
  LIGHTHOUSE_CHECK(wanted == started, "parallel.data = ", data, " and parallel.context = ", parallel.context, " are ",
                   wanted, " processes, but ", started, started == 1 ? " was" : " were", " started; start ", wanted,
                   " (lighthouse launch -n ", wanted, " train …, torchrun --nproc-per-node, srun --ntasks)");
  RunConfig started_as = config;
  started_as.parallel.data = data;
  validate(started_as);
  return world == nullptr ? Mesh() : Mesh(*world, parallel.context);
}

void set_threads(const TrainingConfig& training, const World* world) {
  int64_t threads = training.threads;
  if (threads == 0 && world != nullptr && std::getenv("OMP_NUM_THREADS") == nullptr) {
    threads = std::max<int64_t>(at::get_num_threads() / world->launch().local_world_size, 1);
  }
  if (threads > 0) at::set_num_threads(static_cast<int>(threads));
}

std::string mesh_text(const Mesh& mesh, const std::vector<Span>& spans) {
  if (mesh.context_size() == 1) return detail::concat(mesh.size(), " processes, each with micro-batches of its own");
  const auto [fewest, most] =
      std::minmax_element(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.size() < b.size(); });
  std::string text =
      detail::concat(mesh.size(), " processes, of which ", mesh.context_size(), " share each sequence, ");
  if (fewest->size() == most->size()) return text + std::to_string(most->size()) + " tokens each";
  return text + detail::concat("from ", fewest->size(), " to ", most->size(),
                               " tokens each; a number of tiles (attention.topk / tile_topk) that ",
                               mesh.context_size(), " divides shares evenly");
}

CheckpointRanks checkpoint_ranks(const Mesh& mesh) {
  World* const world = mesh.world();
  if (world == nullptr) return {};
  return {mesh.rank(), mesh.size(), [world](const std::string& text, const CheckpointRanks::Conclude& conclude) {
            return world->conclude(text, conclude);
          }};
}

std::string program_text(const Environment& environment) {
  return "lighthouse " + environment.lighthouse + "\ntorch " + environment.torch + "\ncuDNN " + environment.cudnn +
         "\n" + environment.device.substr(0, environment.device.find(':'));
}

}  // namespace lighthouse

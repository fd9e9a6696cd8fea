// The processes of a run: how many its configuration asks for, and what they must have in common.
#pragma once

#include <string>
#include <vector>

#include "config/run_config.h"
#include "parallel/context_plan.h"
#include "parallel/mesh.h"
#include "train/checkpoint_ranks.h"
#include "train/environment.h"

namespace lighthouse {

/// The ranks of `world` (null: this process alone) as parallel.data x parallel.context. Throws InvalidArgument, saying
/// how many to start, where that is not their number, and what validate (config/schema.h) does for so many.
Mesh mesh_of(const RunConfig& config, World* world);

/// training.threads of torch; where that is 0, what this process's share of the machine is, unless OMP_NUM_THREADS says
/// it.
void set_threads(const TrainingConfig& training, const World* world);

/// One line for people: how many processes, and how they share the work. `spans`: tokens of each that has a share of a
/// sequence.
std::string mesh_text(const Mesh& mesh, const std::vector<Span>& spans);

/// As checkpoints know the ranks: they agree by the store of the world.
CheckpointRanks checkpoint_ranks(const Mesh& mesh);

/// Versions and the kind of device, a line each.
std::string program_text(const Environment& environment);

}  // namespace lighthouse

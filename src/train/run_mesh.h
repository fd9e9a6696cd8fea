// The processes of a run: how many its configuration asks for, and what they must have in common.
#pragma once

#include <string>

#include "config/run_config.h"
#include "parallel/mesh.h"
#include "train/checkpoint_ranks.h"
#include "train/environment.h"

namespace lighthouse {

/// The ranks of `world` (null: this process alone) as parallel.data x parallel.context. Throws InvalidArgument, saying
/// how many to start or what to set, where that is not their number, or a step has too few micro-batches for them.
Mesh mesh_of(const RunConfig& config, World* world);

/// training.threads of torch; where that is 0, what this process's share of the machine is, unless OMP_NUM_THREADS says
/// it.
void set_threads(const TrainingConfig& training, const World* world);

/// As checkpoints know the ranks: they agree by the store of the world.
CheckpointRanks checkpoint_ranks(const Mesh& mesh);

/// Versions and the kind of device, a line each.
std::string program_text(const Environment& environment);

}  // namespace lighthouse

// RUN/run.json: with what a run was made, for whoever compares runs.
#pragma once

#include <string>

#include "data/sequence_loader.h"
#include "model/decoder.h"
#include "train/train_state.h"

namespace lighthouse {

inline constexpr const char* kRunDescriptionFile = "run.json";

/// JSON: versions (lighthouse, torch), device and its name, threads, processes that have sequences of their own (data)
/// and that share each (context), parameters; of the corpus path, fingerprint, content, training_tokens and
/// validation_sequences; of each of `changes` step, key, before and after.
std::string describe_run(const Decoder& decoder, const SequenceLoader& loader, const RunIdentity& identity,
                         const std::vector<KeyChange>& changes);

}  // namespace lighthouse

// training.initial_weights: a run that starts from a model of Hugging Face's transformers.
#pragma once

#include <filesystem>

#include "config/run_config.h"
#include "model/decoder.h"

namespace lighthouse {

/// Copies the weights of a folder, with config.json and model.safetensors or shards with their index, into a
/// decoder; what is 16 bits wide there is fp32 afterwards. Throws InvalidArgument when there is no such folder or file,
/// naming every key of [model] that does not have the folder's value (but init_std, which then means nothing, and with
/// kChanged model.rope_*, of which one must differ), for models that this decoder cannot run, and for weights that do
/// not fit config.json; DamagedFile; std::system_error.
void load_initial_weights(Decoder& decoder, const std::filesystem::path& folder, InitialRope rope = InitialRope::kKept);

/// RUN/initial_model: of the folder that a run began from what its exports carry over (ExportOptions::origin). A run
/// that begins writes it, or removes that of an earlier beginning when `folder` is empty. Throws std::system_error.
inline constexpr const char* kInitialModelFolder = "initial_model";
void keep_initial_model(const std::filesystem::path& run_dir, const std::filesystem::path& folder);

/// RUN/initial_model, or for a run without it training.initial_weights; empty when that is not there either.
std::filesystem::path initial_model_of(const std::filesystem::path& run_dir, const RunConfig& config);

}  // namespace lighthouse

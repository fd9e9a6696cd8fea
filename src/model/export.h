// A decoder as a folder that Hugging Face's transformers loads: safetensors and config.json. import.h reads such
// folders.
#pragma once

#include <cstdint>
#include <filesystem>
#include <vector>

#include "model/decoder.h"

namespace lighthouse {

struct ExportOptions {
  at::ScalarType dtype = at::kFloat;  ///< of the weights: at::kFloat or at::kBFloat16
  int64_t max_positions = 4096;       ///< max_position_embeddings, >= 1: the sequence length trained on; not a limit
  bool overwrite = false;             ///< replace an earlier export
  /// A folder with the config.json, generation_config.json and tokenizer of the model from which training began: its
  /// special tokens, settings of generation and tokenizer are carried over, and its max_position_embeddings where that
  /// is larger. Empty: none.
  std::filesystem::path origin = {};
  /// A folder with the files of a tokenizer, and where there is one a generation_config.json with its special tokens,
  /// in the place of those of the origin. Empty: the origin's.
  std::filesystem::path tokenizer = {};
  /// That tokenizer is RUN/tokenizer: of the origin no special token but what pads, and no setting of generation, is
  /// carried over. Without a tokenizer.json, which all of transformers reads alike, no tokenizer is written.
  bool trained_tokenizer = false;
};

/// Writes model.safetensors, config.json and generation_config.json into `folder`, and a tokenizer where there is one:
/// the one given, that of the origin, or else of bytes for a model of 256 tokens. Returns the paths. The folder appears
/// complete or not at all. transformers loads it as the architecture of model.family.
/// Throws InvalidArgument when `folder` is a file, or is not empty (with `overwrite`: holds anything but an export),
/// and for a model that transformers refuses; std::system_error naming path and reason.
std::vector<std::filesystem::path> export_huggingface(const Decoder& decoder, const std::filesystem::path& folder,
                                                      const ExportOptions& options = {});

}  // namespace lighthouse

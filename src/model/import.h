// Models of Hugging Face's transformers: a folder of safetensors and config.json, as save_pretrained and export.h write
// it.
#pragma once

#include <filesystem>

#include "model/decoder.h"

namespace lighthouse {

/// The model that FOLDER/config.json describes. Throws std::system_error naming the file, and what
/// parse_huggingface_config throws.
ModelConfig read_huggingface_config(const std::filesystem::path& folder);

/// huggingface_positions of FOLDER/config.json.
int64_t read_huggingface_positions(const std::filesystem::path& folder);

/// Copies the weights of a folder, in one model.safetensors or in shards with their index, of any floating-point dtype,
/// into a decoder made for its model; buffers, which no such folder holds, stay. Throws InvalidArgument naming folder
/// and tensor when one is missing, unknown or of another shape, and then no weight has changed; DamagedFile;
/// std::system_error.
void load_huggingface_weights(Decoder& decoder, const std::filesystem::path& folder);

/// The two together: a model from such a folder.
Decoder load_huggingface(const std::filesystem::path& folder, const AttentionConfig& attention = {},
                         const Execution& execution = {});

}  // namespace lighthouse

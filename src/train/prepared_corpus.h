// A corpus of lighthouse-prepare, which leaves manifest.json and the folder "tokenizer" beside its data sets.
#pragma once

#include <cstdint>
#include <filesystem>

#include "config/run_config.h"

namespace lighthouse {

/// Throws InvalidArgument when data.path is such a corpus, of a tokenizer with more tokens than `vocab_size`: the first
/// batch with one of them may come after hours. So for each of data.mixture, and for two of them with different
/// tokenizers. Any other corpus passes.
void check_vocabulary(const DataConfig& data, int64_t vocab_size);

/// RUN/tokenizer: a copy of the tokenizer beside data.path, or the first of data.mixture that has one. A run that
/// begins writes it, or removes that of an earlier beginning where there is none. Throws std::system_error.
inline constexpr const char* kTokenizerFolder = "tokenizer";
void keep_tokenizer(const std::filesystem::path& run_dir, const DataConfig& data);

}  // namespace lighthouse

// A corpus of lighthouse-prepare, which leaves manifest.json and the folder "tokenizer" beside its data sets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "config/run_config.h"

namespace lighthouse {

/// Throws InvalidArgument when data.path is such a corpus, of a tokenizer with more tokens than `vocab_size`: the first
/// batch with one of them may come after hours. So for each of data.mixture, and for two of them with different
/// tokenizers. Any other corpus passes.
void check_vocabulary(const DataConfig& data, int64_t vocab_size);

/// Throws InvalidArgument when a corpus of `data` was prepared with another tokenizer than that in the folder of a
/// model, whose tokens would then mean something else. Corpora of other programs, and folders without a tokenizer,
/// pass.
void check_tokenizer(const DataConfig& data, const std::filesystem::path& model);

/// Tokens of the vocabulary that the corpora of `data` were prepared with; nullopt for those of another origin.
std::optional<int64_t> prepared_vocabulary(const DataConfig& data);

/// A folder of lighthouse-prepare, by its data sets.
struct PreparedFolder {
  std::filesystem::path train;
  std::filesystem::path validation;  ///< empty: it has none
  int64_t num_validation_tokens = 0;
};
/// nullopt for a folder of another origin.
std::optional<PreparedFolder> prepared_folder(const std::filesystem::path& folder);

/// RUN/tokenizer: a copy of the tokenizer beside data.path, or the first of data.mixture that has one. A run that
/// begins writes it, or removes that of an earlier beginning where there is none. Throws std::system_error.
inline constexpr const char* kTokenizerFolder = "tokenizer";
void keep_tokenizer(const std::filesystem::path& run_dir, const DataConfig& data);

}  // namespace lighthouse

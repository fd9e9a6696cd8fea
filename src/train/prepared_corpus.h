// A corpus of lighthouse-prepare, which leaves manifest.json and the folder "tokenizer" beside its data sets.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>

#include "config/run_config.h"

namespace lighthouse {

/// Throws InvalidArgument when a corpus of `data`, for training or validation, is of a tokenizer with more tokens than
/// `vocab_size`: the first batch with one of them may come after hours; when two of them have different tokenizers, as
/// text has that is read as bytes beside one that was tokenized; and when the tokenizer beside one is gone. Corpora of
/// other programs pass.
void check_vocabulary(const DataConfig& data, int64_t vocab_size);

/// Throws InvalidArgument when a corpus of `data` has another tokenizer than that in the folder of a model, whose
/// tokens would then mean something else: it was prepared with another, or with one that cannot be compared, or it is
/// text, whose bytes are read. Of a folder without a tokenizer the size of the vocabulary, `vocab_size`, is compared.
/// Corpora of other programs pass.
void check_tokenizer(const DataConfig& data, const std::filesystem::path& model, int64_t vocab_size);

/// Whether what is read of the corpus `path` are bytes of text. Of one that cannot be opened false.
bool is_text(const DataConfig& data, const std::filesystem::path& path);

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

/// RUN/tokenizer: a copy of the tokenizer beside data.path, or the first of data.mixture that has one, which makes of a
/// text what the corpus has of it: it puts first what was put before documents, and nothing else, and has no template
/// of chats. A run that begins writes it, or removes that of an earlier beginning where there is none. Throws
/// std::system_error.
inline constexpr const char* kTokenizerFolder = "tokenizer";
void keep_tokenizer(const std::filesystem::path& run_dir, const DataConfig& data);

}  // namespace lighthouse

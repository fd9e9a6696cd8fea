// Text as the tokens of a tokenizer.
#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "data/token_source.h"
#include "data/tokenizer.h"

namespace lighthouse {

/// Most text that is tokenized here, all in memory; of more lighthouse-prepare makes a corpus.
inline constexpr int64_t kMostEncodedBytes = int64_t{1} << 26;

/// The text of open_text_source as tokens: each document as lighthouse-prepare would tokenize it, with what the
/// tokenizer puts before a text, and behind it the first of the tokens that end one, where there is any. Throws
/// InvalidArgument for more than `most_bytes` of text, naming lighthouse-prepare and `folder`, where the tokenizer is,
/// and for text that is not UTF-8.
std::unique_ptr<TokenSource> open_encoded_text(const std::string& path, const std::vector<std::string>& extensions,
                                               Tokenizer& tokenizer, const std::filesystem::path& folder,
                                               int64_t most_bytes = kMostEncodedBytes);

}  // namespace lighthouse

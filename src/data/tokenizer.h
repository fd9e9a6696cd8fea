// The tokenizer of a model: text to tokens and back.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "io/child_process.h"

namespace lighthouse {

/// Tokens after which a text is over, as generation_config.json of a folder says, or else its config.json; none: not
/// said. Throws DamagedFile that names the file and what is no token.
std::vector<int64_t> end_tokens(const std::filesystem::path& folder);

/// A tokenizer.json of Hugging Face or a tokenizer.model of sentencepiece, in their own libraries: a Python process,
/// $LIGHTHOUSE_PYTHON or else python3, that ends with this object. Not for several threads at once.
class Tokenizer {
 public:
  /// Of a folder. Throws InvalidArgument that says what is missing: Python, its library, the file.
  explicit Tokenizer(const std::filesystem::path& folder);

  /// With what the tokenizer itself puts before a text, as its begin. Throws InvalidArgument unless text is UTF-8.
  std::vector<int64_t> encode(const std::string& text);
  /// The same of a text in which the name of a special token is text like any other, as lighthouse-prepare reads it.
  std::vector<int64_t> encode_document(const std::string& text);
  /// UTF-8, special tokens by name; of tokens that the vocabulary does not have, nothing.
  std::string decode(std::span<const int64_t> tokens);
  /// end_tokens of its folder.
  const std::vector<int64_t>& ends() const { return ends_; }

 private:
  std::vector<int64_t> encoded(const char* request, const std::string& text);

  std::vector<int64_t> ends_;
  std::unique_ptr<ChildProcess> process_;
};

/// Text of tokens that come one by one: what is certain of it. A character may need several.
class TextStream {
 public:
  explicit TextStream(Tokenizer& tokenizer) : tokenizer_(tokenizer) {}
  std::string add(int64_t token);
  std::string finish();  ///< what is left of a character that did not end

 private:
  Tokenizer& tokenizer_;
  std::vector<int64_t> tokens_;  ///< the latest
  std::string shown_;            ///< text of the first num_shown_ of them, of which all is returned
  size_t num_shown_ = 0;
};

}  // namespace lighthouse

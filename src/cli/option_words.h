// Errors about keys of the configuration that a command has options for.
#pragma once

#include <initializer_list>
#include <string>
#include <utility>

#include "cli/commands.h"
#include "lighthouse/check.h"

namespace lighthouse::cli {

/// `text` with every `.first` replaced by `.second`.
inline std::string renamed(std::string text, std::initializer_list<std::pair<const char*, const char*>> names) {
  for (const auto& [key, option] : names) {
    for (size_t place = 0; (place = text.find(key, place)) != std::string::npos; place += std::string(option).size()) {
      text.replace(place, std::string(key).size(), option);
    }
  }
  return text;
}

/// What `body` returns. The keys in its InvalidArgument are called by the options that set them: of eval and audit, or
/// `validation` for data.validation_path.
template <typename Body>
auto in_words_of_options(const Body& body, const char* validation = "--data") {
  try {
    return body();
  } catch (const InvalidArgument& error) {
    throw UsageError(
        renamed(error.what(),
                {{"data.validation_path", validation}, {"data.path", "--data"}, {"training.seq_len", "--seq-len"}}));
  }
}

}  // namespace lighthouse::cli

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
/// `validation` for data.validation_path. What no option of theirs sets is not advised.
template <typename Body>
auto in_words_of_options(const Body& body, const char* validation = "--data") {
  try {
    return body();
  } catch (const InvalidArgument& error) {
    throw UsageError(renamed(
        error.what(),
        {{"data.validation_path", validation},
         {"data.path", "--data"},
         {"training.seq_len", "--seq-len"},
         {", choose endings with data.extensions, or set data.format = \"text\" to train on its bytes as they are", ""},
         {", or set data.format to datatrove", ""},
         {"set data.format to text or megatron", "move one of them to another folder"},
         {"as text set data.format = \"text\"", "as text give it another name"}}));
  }
}

/// What `body` returns. Its InvalidArgument about training.device speaks of --device, where that is `given`, or else of
/// the run's.
template <typename Body>
auto in_words_of_device(const Body& body, bool given) {
  try {
    return body();
  } catch (const InvalidArgument& error) {
    if (given) {
      throw UsageError(renamed(error.what(),
                               {{"training.device = \"cuda\"", "--device cuda"}, {"training.device: ", "--device: "}}));
    }
    throw UsageError(renamed(error.what(), {{"training.device = \"cuda\"", "training.device = \"cuda\" of the run"},
                                            {"training.device: ", "training.device of the run: "},
                                            {"use cpu or auto", "give --device cpu or auto"},
                                            {"or use cpu", "or give --device cpu"}}));
  }
}

}  // namespace lighthouse::cli

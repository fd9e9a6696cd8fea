// A tokenizer as a model is trained with it: nothing of the model that it was taken from. Knows no torch.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

namespace lighthouse {

/// A token by name and number.
struct NamedToken {
  std::string name;
  int64_t number = 0;
};

/// The text of a tokenizer.json that puts `begin` before a text and nothing else around it; what is no JSON stays as it
/// is.
std::string with_begin(const std::string& tokenizer_json, const std::optional<NamedToken>& begin);

/// The text of the tokenizer_config.json beside it: transformers takes tokenizer.json as it is, with any architecture,
/// and there is no chat template, for which a model that goes on with text has no use. What is no JSON object stays as
/// it is.
std::string with_plain_class(const std::string& tokenizer_config);

/// A Python file, and the text of a tokenizer_config.json that names it: transformers 5 builds a tokenizer of its own
/// for a Qwen2, from the vocabulary in tokenizer.json alone, unless the folder brings one. Where code in folders is not
/// trusted the class that tokenizer_config.json names is taken.
inline constexpr const char* kPlainTokenizerFile = "tokenization_plain.py";
inline constexpr const char* kPlainTokenizer =
    "from transformers import PreTrainedTokenizerFast\n\n\nclass PlainTokenizer(PreTrainedTokenizerFast):\n    pass\n";
std::string with_plain_tokenizer(const std::string& tokenizer_config);

}  // namespace lighthouse

// Files of a model's folder that are not its weights: tokenizer, chat template and settings of generation. Knows no
// torch.
#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

namespace lighthouse {

inline constexpr const char* kGenerationFile = "generation_config.json";
inline constexpr const char* kTokenizerFile = "tokenizer.json";
inline constexpr const char* kTokenizerConfigFile = "tokenizer_config.json";

/// By the names that tokenizers of transformers have: tokenizer*, vocab.*, merges.txt, *.model, *.tiktoken, ...
bool is_tokenizer_file(const std::string& name);

/// Names of the files of a folder that belong to its tokenizer, sorted; none where there is no such folder.
std::vector<std::string> tokenizer_files(const std::filesystem::path& folder);

/// Whether a file of a tokenizer is a template of chats.
bool is_chat_file(const std::string& name);

/// Whether the folder has a tokenizer, as tokenizer.json or tokenizer.model, of more than bytes as below.
bool has_text_tokenizer(const std::filesystem::path& folder);

/// Special tokens of a model whose 256 tokens are bytes. Text has no zero byte, so that it can stand for its begin, its
/// end and what pads it.
inline constexpr int64_t kByteSpecial = 0;

/// tokenizer.json of such a model: token i is byte i, and text becomes its UTF-8 bytes.
nlohmann::ordered_json byte_tokenizer();
/// tokenizer_config.json beside it.
nlohmann::ordered_json byte_tokenizer_config(int64_t max_positions);

}  // namespace lighthouse

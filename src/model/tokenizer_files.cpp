#include "model/tokenizer_files.h"

#include <algorithm>
#include <array>

#include "io/errors.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "model/trained_tokenizer.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

/// Bytes that stand for themselves in the vocabulary of a byte-level tokenizer; of the others the n-th is U+0100 + n.
bool is_printed(int64_t byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
}

/// In UTF-8; all are below U+0800.
std::string character(int64_t code) {
  if (code < 0x80) return {static_cast<char>(code)};
  return {static_cast<char>(0xC0 | code >> 6), static_cast<char>(0x80 | (code & 0x3F))};
}

/// [256] the token of each byte.
std::vector<std::string> byte_tokens() {
  std::vector<std::string> tokens;
  int64_t others = 0;
  for (int64_t byte = 0; byte < 256; ++byte) tokens.push_back(character(is_printed(byte) ? byte : 0x100 + others++));
  return tokens;
}

}  // namespace

bool is_tokenizer_file(const std::string& name) {
  constexpr std::array kNames = {
      "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt", "merges.txt",
      "chat_template.json",      "tekken.json"};
  return std::find(kNames.begin(), kNames.end(), name) != kNames.end() || name.starts_with("tokenizer") ||
         name == kPlainTokenizerFile || name.ends_with(".tiktoken") || name.ends_with(".model") ||
         name.ends_with(".jinja");
}

std::vector<std::string> tokenizer_files(const fs::path& folder) {
  std::vector<std::string> names;
  std::error_code missing;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, missing)) {
    const std::string name = entry.path().filename().string();
    if (is_tokenizer_file(name) && entry.is_regular_file(missing)) names.push_back(name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

bool is_chat_file(const std::string& name) { return name == "chat_template.json" || name.ends_with(".jinja"); }

bool has_text_tokenizer(const fs::path& folder) {
  const fs::path file = folder / kTokenizerFile;
  if (!fs::is_regular_file(file)) return fs::is_regular_file(folder / "tokenizer.model");
  constexpr uintmax_t kMostBytes = 1 << 16;  // of what we write
  if (fs::file_size(file) > kMostBytes) return true;
  try {
    return parse_json(read_text_file(file), file.string()) != nlohmann::json(byte_tokenizer());
  } catch (const DamagedFile&) {  // not what we write
    return true;
  }
}

nlohmann::ordered_json byte_tokenizer() {
  nlohmann::ordered_json vocabulary;
  for (const std::string& token : byte_tokens()) vocabulary[token] = vocabulary.size();
  const nlohmann::ordered_json bytes = {
      {"type", "ByteLevel"}, {"add_prefix_space", false}, {"trim_offsets", false}, {"use_regex", false}};
  const nlohmann::ordered_json model = {{"type", "BPE"},
                                        {"dropout", nullptr},
                                        {"unk_token", nullptr},
                                        {"continuing_subword_prefix", nullptr},
                                        {"end_of_word_suffix", nullptr},
                                        {"fuse_unk", false},
                                        {"byte_fallback", false},
                                        {"ignore_merges", false},
                                        {"vocab", vocabulary},
                                        {"merges", nlohmann::ordered_json::array()}};
  return {{"version", "1.0"},
          {"truncation", nullptr},
          {"padding", nullptr},
          {"added_tokens", nlohmann::ordered_json::array()},
          {"normalizer", nullptr},
          {"pre_tokenizer", bytes},
          {"post_processor", nullptr},
          {"decoder", bytes},
          {"model", model}};
}

nlohmann::ordered_json byte_tokenizer_config(int64_t max_positions) {
  const std::string special = byte_tokens().at(kByteSpecial);
  return {{"tokenizer_class", "PreTrainedTokenizerFast"},
          {"bos_token", special},
          {"eos_token", special},
          {"pad_token", special},
          {"clean_up_tokenization_spaces", false},
          {"split_special_tokens", true},  // the character by which the special token is written is text like any other
          {"model_max_length", max_positions}};
}

}  // namespace lighthouse

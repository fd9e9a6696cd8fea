#include "model/token_numbers.h"

#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <unordered_map>

#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"
#include "model/tokenizer_files.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

using nlohmann::json;
using TokenNumbers = std::unordered_map<std::string, int64_t>;

constexpr const char* kPieceFile = "tokenizer.model";

/// Of an object {token: number}, or of unigram models, whose list [[token, score], ...] is in the order of the numbers.
void add_vocabulary(const json& vocabulary, TokenNumbers& numbers) {
  if (vocabulary.is_object()) {
    for (const auto& [token, number] : vocabulary.items()) numbers[token] = whole_number(number, "a token's number");
    return;
  }
  if (!vocabulary.is_array()) throw DamagedFile("model.vocab is neither an object nor a list");
  for (const json& piece : vocabulary) {
    numbers.emplace(piece.at(0).get<std::string>(), static_cast<int64_t>(numbers.size()));
  }
}

TokenNumbers read_token_numbers(const fs::path& file) {
  const std::string source = detail::concat("'", file.string(), "'");
  const json tokenizer = parse_json(read_text_file(file), file.string(), {.without = "merges"});
  return reading(source, [&] {
    TokenNumbers numbers;
    add_vocabulary(member(member(tokenizer, "model"), "vocab"), numbers);
    for (const json& added : tokenizer.value("added_tokens", json::array())) {
      numbers[member(added, "content").get<std::string>()] = whole_member(added, "id");
    }
    return numbers;
  });
}

/// The first token of the model's, by number, that is another one here.
std::string difference_of(const TokenNumbers& ours, const TokenNumbers& theirs) {
  const std::string* first = nullptr;
  int64_t number = std::numeric_limits<int64_t>::max();
  for (const auto& [token, their_number] : theirs) {
    const auto found = ours.find(token);
    const bool same = found != ours.end() && found->second == their_number;
    if (same || their_number >= number) continue;
    first = &token;
    number = their_number;
  }
  if (first == nullptr) return "";
  const auto found = ours.find(*first);
  return detail::concat("token ", quoted(*first), " has number ", number, " there and ",
                        found == ours.end() ? "none" : std::to_string(found->second), " here");
}

bool both_have(const char* name, const fs::path& folder, const fs::path& model) {
  return fs::is_regular_file(folder / name) && fs::is_regular_file(model / name);
}

}  // namespace

std::optional<std::string> tokenizer_difference(const fs::path& folder, const fs::path& model) {
  const bool json = both_have(kTokenizerFile, folder, model), pieces = both_have(kPieceFile, folder, model);
  for (const char* name : {kTokenizerFile, kPieceFile}) {
    if (both_have(name, folder, model) && read_file(folder / name) == read_file(model / name)) return "";
  }
  if (json)
    return difference_of(read_token_numbers(folder / kTokenizerFile), read_token_numbers(model / kTokenizerFile));
  return pieces ? std::optional(detail::concat(kPieceFile, " has other bytes")) : std::nullopt;
}

}  // namespace lighthouse

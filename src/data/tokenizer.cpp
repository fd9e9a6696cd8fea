#include "data/tokenizer.h"

#include <cstdlib>
#include <nlohmann/json.hpp>
#include <optional>
#include <stdexcept>

#include "data/tokenizer_process.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using nlohmann::json;

constexpr std::string_view kReplacement = "\xEF\xBF\xBD";  // U+FFFD

std::string python() {
  const char* const named = std::getenv("LIGHTHOUSE_PYTHON");
  return named != nullptr && *named != '\0' ? named : "python3";
}

/// eos_token_id is a number, several, or null; none where it is not said.
std::optional<std::vector<int64_t>> tokens_of(const json& config) {
  if (!config.is_object()) throw DamagedFile("not a JSON object");
  const auto found = config.find("eos_token_id");
  if (found == config.end() || found->is_null()) return std::nullopt;
  std::vector<int64_t> tokens;
  for (const json& token : *found) {  // a number is a list of one
    if (!token.is_number_integer()) throw DamagedFile("eos_token_id " + excerpt(*found) + " is not of integers");
    if (token.is_number_unsigned()) tokens.push_back(whole_number(token, "eos_token_id"));  // -1: there is none
  }
  return tokens;
}

json answer_of(ChildProcess& process) {
  json answer = parse_json(process.read_line(), "the answer of the tokenizer");
  if (answer.contains("error")) throw InvalidArgument("tokenizer: " + answer["error"].get<std::string>());
  return answer;
}

}  // namespace

std::vector<int64_t> end_tokens(const std::filesystem::path& folder) {
  for (const char* name : {"generation_config.json", "config.json"}) {
    if (!std::filesystem::exists(folder / name)) continue;
    const std::string source = (folder / name).string();
    const json config = parse_json(read_text_file(source), source);
    if (auto tokens = reading(source, [&] { return tokens_of(config); })) return *std::move(tokens);
  }
  return {};
}

Tokenizer::Tokenizer(const std::filesystem::path& folder) : ends_(end_tokens(folder)) {
  try {
    process_ =
        std::make_unique<ChildProcess>(std::vector<std::string>{python(), "-c", kTokenizerProcess, folder.string()});
    answer_of(*process_);
  } catch (const InvalidArgument&) {
    throw;
  } catch (const std::runtime_error& error) {  // of the process
    throw InvalidArgument(detail::concat("tokenizer: ", error.what(),
                                         "; it needs Python with tokenizers: name one in LIGHTHOUSE_PYTHON"));
  }
}

std::vector<int64_t> Tokenizer::encode(const std::string& text) { return encoded("encode", text); }

std::vector<int64_t> Tokenizer::encode_document(const std::string& text) { return encoded("document", text); }

std::vector<int64_t> Tokenizer::encoded(const char* request_name, const std::string& text) {
  std::string request;
  try {
    request = json{{request_name, text}}.dump(-1, ' ', /*ensure_ascii=*/true);
  } catch (const json::type_error&) {
    throw InvalidArgument("tokenizer: the text is not valid UTF-8");
  }
  process_->write_line(request);
  return answer_of(*process_).at("tokens").get<std::vector<int64_t>>();
}

std::string Tokenizer::decode(std::span<const int64_t> tokens) {
  process_->write_line(json{{"decode", std::vector<int64_t>(tokens.begin(), tokens.end())}}.dump());
  return answer_of(*process_).at("text").get<std::string>();
}

std::string TextStream::add(int64_t token) {
  tokens_.push_back(token);
  const std::string text = tokenizer_.decode(tokens_);
  // The text of the tokens before is decoded with them: alone, a token may lose the space that it begins with.
  if (text.size() <= shown_.size() || text.ends_with(kReplacement)) return "";
  const std::string more = text.substr(shown_.size());
  tokens_.erase(tokens_.begin(), tokens_.begin() + static_cast<int64_t>(num_shown_));
  num_shown_ = tokens_.size();
  shown_ = tokenizer_.decode(tokens_);
  return more;
}

std::string TextStream::finish() {
  const std::string text = tokenizer_.decode(tokens_);
  return text.size() > shown_.size() ? text.substr(shown_.size()) : "";
}

}  // namespace lighthouse

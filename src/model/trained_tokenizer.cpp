#include "model/trained_tokenizer.h"

#include <nlohmann/json.hpp>
#include <utility>

#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kPostProcessor = "post_processor";

/// The end of the string that begins at `place`, in JSON.
size_t end_of_string(const std::string& text, size_t place) {
  for (++place; text[place] != '"'; ++place) {
    if (text[place] == '\\') ++place;
  }
  return place + 1;
}

/// Where the value of a member of the outermost object stands in `text`, which is valid: [begin, end). Large
/// vocabularies are not written anew for it.
std::pair<size_t, size_t> value_range(const std::string& text, const std::string& name) {
  constexpr const char* kBlank = " \t\r\n";
  size_t begin = 0;
  int64_t depth = 0;
  for (size_t place = 0; place < text.size();) {
    const char character = text[place];
    if (character == '"') {
      const size_t end = end_of_string(text, place);
      const size_t next = text.find_first_not_of(kBlank, end);
      if (depth == 1 && begin == 0 && text[next] == ':' && text.substr(place, end - place) == '"' + name + '"') {
        begin = text.find_first_not_of(kBlank, next + 1);
        place = begin;
      } else {
        place = end;
      }
      continue;
    }
    const bool closes = character == '}' || character == ']';
    if (begin > 0 && depth == 1 && (character == ',' || closes)) return {begin, place};
    if (character == '{' || character == '[') ++depth;
    if (closes) --depth;
    ++place;
  }
  return {0, 0};
}

/// The parts of a post-processor, one or several in order.
std::vector<json> parts_of(const json& processor) {
  if (!processor.is_object()) return {};
  if (processor.value("type", json()) != "Sequence") return {processor};
  std::vector<json> parts;
  for (const json& part : processor.value("processors", json::array())) {
    if (part.is_object()) parts.push_back(part);
  }
  return parts;
}

json template_of(const NamedToken& begin) {
  const auto special = [&](int type) { return json{{"SpecialToken", {{"id", begin.name}, {"type_id", type}}}}; };
  const auto text = [](const char* name, int type) { return json{{"Sequence", {{"id", name}, {"type_id", type}}}}; };
  const json token = {{"id", begin.name}, {"ids", {begin.number}}, {"tokens", {begin.name}}};
  return {{"type", "TemplateProcessing"},
          {"single", {special(0), text("A", 0)}},
          {"pair", {special(0), text("A", 0), special(1), text("B", 1)}},
          {"special_tokens", {{begin.name, token}}}};
}

/// Of the parts those that add no token, and what puts `begin` first; null for none.
json processor_of(const std::vector<json>& parts, const std::optional<NamedToken>& begin) {
  json kept = json::array();
  for (const json& part : parts) {
    if (part.value("type", json()) == "ByteLevel") kept.push_back(part);
  }
  if (begin) kept.push_back(template_of(*begin));
  if (kept.size() > 1) return {{"type", "Sequence"}, {"processors", kept}};
  return kept.empty() ? json() : kept.front();
}

/// nullopt for what is no JSON object, or too deep. Tokenizers are written whole and so are read whole, however large.
std::optional<json> object_of(const std::string& text) {
  try {
    json value = parse_json(text, "", {.bytes = kNoLimit});
    return value.is_object() ? std::optional(std::move(value)) : std::nullopt;
  } catch (const DamagedFile&) {
    return {};
  }
}

template <typename Change>
std::string changed_config(const std::string& text, const Change& change) {
  if (!object_of(text)) return text;
  ordered_json config = ordered_json::parse(text);
  change(config);
  return config.dump(2, ' ', false, ordered_json::error_handler_t::replace) + "\n";
}

}  // namespace

std::string with_begin(const std::string& tokenizer_json, const std::optional<NamedToken>& begin) {
  const std::optional<json> tokenizer = object_of(tokenizer_json);
  if (!tokenizer) return tokenizer_json;
  const json before = tokenizer->value(kPostProcessor, json());
  const json after = processor_of(parts_of(before), begin);
  if (before == after) return tokenizer_json;
  std::string text = tokenizer_json;
  if (const auto [first, end] = value_range(text, kPostProcessor); first > 0) {
    return text.replace(first, end - first, after.dump());
  }
  const size_t brace = text.find('{') + 1;
  return text.insert(brace, detail::concat('"', kPostProcessor, "\":", after.dump(), tokenizer->empty() ? "" : ","));
}

std::string with_plain_class(const std::string& tokenizer_config) {
  return changed_config(tokenizer_config, [](ordered_json& config) {
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
    for (const char* key : {"chat_template", "auto_map"}) config.erase(key);
    for (const char* key : {"add_bos_token", "add_eos_token"}) config.erase(key);  // of classes that then add tokens
    if (!config.contains("model_input_names")) config["model_input_names"] = {"input_ids", "attention_mask"};
  });
}

std::string with_plain_tokenizer(const std::string& tokenizer_config) {
  return changed_config(tokenizer_config, [](ordered_json& config) {
    config["auto_map"] = {{"AutoTokenizer", {nullptr, "tokenization_plain.PlainTokenizer"}}};
  });
}

}  // namespace lighthouse

#include "io/json_text.h"

#include <set>
#include <vector>

#include "io/errors.h"

namespace lighthouse {

nlohmann::json parse_json(std::string_view text, const std::string& source) {
  using nlohmann::json;
  std::vector<std::set<std::string>> open_objects;  // names seen in each enclosing object
  const auto check_names = [&](int /*depth*/, json::parse_event_t event, json& value) {
    if (event == json::parse_event_t::object_start) open_objects.emplace_back();
    if (event == json::parse_event_t::object_end) open_objects.pop_back();
    if (event == json::parse_event_t::key && !open_objects.back().insert(value.get<std::string>()).second) {
      throw DamagedFile(source + ": the name " + value.dump() + " stands twice in one object");
    }
    return true;
  };
  // The parser takes a zero byte for the end of the text and would pass over all that follows.
  if (text.find('\0') != std::string_view::npos) throw DamagedFile(source + ": not JSON: it has a zero byte");
  try {
    return json::parse(text, check_names);
  } catch (const json::exception& error) {
    throw DamagedFile(source + ": not JSON: " + error.what());
  }
}

std::string quoted(const std::string& name) {
  return nlohmann::json(name).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

}  // namespace lighthouse

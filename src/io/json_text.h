// JSON read from files: strict, with errors that name the file.
#pragma once

#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lighthouse {

/// Parses a whole text. `source` names the file or part in errors. Throws DamagedFile when it is not JSON (with the
/// place), or when an object has two members of one name, which most parsers pass over.
nlohmann::json parse_json(std::string_view text, const std::string& source);

/// A name as a JSON string, so that control characters in damaged files do not reach a terminal.
std::string quoted(const std::string& name);

}  // namespace lighthouse

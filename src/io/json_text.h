// JSON read from files: strict, with errors that name the file.
#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "io/errors.h"

namespace lighthouse {

/// Arrays and objects within one another that a text may have; as many as the Rust library of safetensors reads.
/// Without a limit the recursive functions of values (dump, ==) end the program.
inline constexpr size_t kMaxJsonDepth = 128;

/// Bytes of memory, by estimate, that the values of a text may take: 27 times the text's if it is of empty objects.
inline constexpr size_t kMaxJsonBytes = size_t{48} << 20;
inline constexpr size_t kNoLimit = std::numeric_limits<size_t>::max();

/// What is kept of a text.
struct JsonLimits {
  size_t bytes = kMaxJsonBytes;
  const char* without =
      nullptr;  ///< members of this name, anywhere, are read and not kept: long ones that none asks for
};

/// Parses a whole text. `source` names the file or part in errors. Throws DamagedFile when it is not JSON (with the
/// place), begins with a byte order mark, is nested deeper than kMaxJsonDepth, takes more memory than `limits` say, or
/// when an object has two members of one name, which most parsers pass over.
nlohmann::json parse_json(std::string_view text, const std::string& source, const JsonLimits& limits = {});

/// The same of a text that is an object, whose members are handed over one by one, in order, and not kept: files with
/// many of them take little memory. Two members of one name are left to the caller to notice. Throws DamagedFile, also
/// when it is no object or a member would take more than `most` bytes of memory, and what `take` throws.
void read_json_members(std::string_view text, const std::string& source,
                       const std::function<void(const std::string& name, const nlohmann::json& value)>& take,
                       size_t most = kNoLimit);

/// What an error of the library says, without its number.
std::string words_of(const nlohmann::json::exception& error);

/// What `read` makes of a value. A DamagedFile and the errors of the library become a DamagedFile with `source`, a file
/// or part, in front.
template <typename Read>
auto reading(const std::string& source, const Read& read) {
  try {
    return read();
  } catch (const DamagedFile& error) {
    throw DamagedFile(source + ": " + error.what());
  } catch (const nlohmann::json::exception& error) {
    throw DamagedFile(source + ": " + words_of(error));
  }
}

/// A member of an object. Throws DamagedFile when it is missing, or `object` is none.
const nlohmann::json& member(const nlohmann::json& object, const char* name);

/// A number without fraction and exponent, from 0 to 2^63 - 1. Throws DamagedFile that says what `name` is instead.
int64_t whole_number(const nlohmann::json& value, const char* name);
/// The same of a member.
int64_t whole_member(const nlohmann::json& object, const char* name);

/// A text as a JSON string.
std::string json_string(const std::string& text);
/// A name in a message, as a JSON string, so that control characters in damaged files do not reach a terminal; of a
/// long one the beginning.
std::string quoted(const std::string& name);
/// A value in a message: as JSON, of a long one the beginning.
std::string excerpt(const nlohmann::json& value);

}  // namespace lighthouse

// Error type and argument checks shared by every layer.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace lighthouse {

/// An argument that the caller can put right. The message names the operation, the value and what would do.
class InvalidArgument : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

namespace detail {
template <typename... Parts>
std::string concat(const Parts&... parts) {
  std::ostringstream text;
  (text << ... << parts);
  return text.str();
}
}  // namespace detail
}  // namespace lighthouse

/// Throws InvalidArgument with the concatenated message parts unless `condition` holds. For the caller's mistakes only.
#define LIGHTHOUSE_CHECK(condition, ...)                                              \
  do {                                                                                \
    if (!(condition)) {                                                               \
      throw ::lighthouse::InvalidArgument(::lighthouse::detail::concat(__VA_ARGS__)); \
    }                                                                                 \
  } while (false)

// Numbers as people read them in messages.
#pragma once

#include <cstdint>
#include <string>

namespace lighthouse {

std::string fixed(double value, int digits);         ///< "2.3456"
std::string signed_fixed(double value, int digits);  ///< "+0.1234", "-0.1234"
std::string with_unit(double count);                 ///< "847", "8.5k", "12.3M", "1.2G"
std::string duration(double seconds);                ///< "0:07", "12:34", "1:02:03"
/// "a, b, c" of at most `limit` names, then "and N more".
template <typename Strings>
std::string listed(const Strings& names, size_t limit) {
  std::string text;
  size_t count = 0;
  for (const std::string& name : names) {
    if (count++ < limit) text += (text.empty() ? "" : ", ") + name;
  }
  return count > limit ? text + " and " + std::to_string(count - limit) + " more" : text;
}

}  // namespace lighthouse

#include "train/text.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <iomanip>
#include <sstream>

namespace lighthouse {

std::string fixed(double value, int digits) {
  if (std::isnan(value)) return "nan";  // which may have a sign
  std::ostringstream text;
  text << std::fixed << std::setprecision(digits) << value;
  return text.str();
}

std::string signed_fixed(double value, int digits) {
  if (std::isnan(value)) return "nan";
  std::ostringstream text;
  text << std::showpos << std::fixed << std::setprecision(digits) << value;
  return text.str();
}

std::string with_unit(double count) {
  constexpr std::array kUnits = {"", "k", "M", "G", "T"};
  size_t unit = 0;
  for (; std::abs(count) >= 999.95 && unit + 1 < kUnits.size(); ++unit) count /= 1000;
  return fixed(count, unit == 0 ? 0 : 1) + kUnits.at(unit);
}

std::string duration(double seconds) {
  constexpr double kLongest = 1e9;
  const auto total = static_cast<int64_t>(std::min(std::max(seconds, 0.0), kLongest));
  std::ostringstream text;
  if (total >= 3600) text << total / 3600 << ':' << std::setw(2) << std::setfill('0');
  text << total / 60 % 60 << ':' << std::setw(2) << std::setfill('0') << total % 60;
  return text.str();
}

}  // namespace lighthouse

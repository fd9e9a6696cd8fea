// Numbers of the environment that make a test longer.
#pragma once

#include <cstdlib>
#include <string>

namespace lighthouse {

/// The number in a variable, or `otherwise` where it is not set.
inline int environment_number(const char* name, int otherwise) {
  const char* text = std::getenv(name);
  return text == nullptr ? otherwise : std::stoi(text);
}

}  // namespace lighthouse

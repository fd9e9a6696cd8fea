// What comes in any order, sorted.
#pragma once

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "model/named_tensors.h"

namespace lighthouse {

/// Names in a folder.
inline std::vector<std::string> names_in(const std::filesystem::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// Ranks write them in another order.
inline NamedTensors by_name(NamedTensors tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return tensors;
}

}  // namespace lighthouse

#include "io/host_memory.h"

#include <algorithm>
#include <charconv>
#include <fstream>
#include <sstream>
#include <string>
#include <string_view>

#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

std::string text_of(const fs::path& path) {
  std::ifstream file(path);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

std::optional<int64_t> number_in(std::string_view text) {
  text.remove_prefix(std::min(text.find_first_not_of(" \t"), text.size()));
  int64_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() ? std::optional(number) : std::nullopt;
}

/// Of the line "NAME NUMBER" or "NAME: NUMBER kB".
std::optional<int64_t> value_of(const std::string& text, std::string_view name) {
  std::istringstream lines(text);
  for (std::string line; std::getline(lines, line);) {
    if (!line.starts_with(name)) continue;
    const std::string_view rest = std::string_view(line).substr(name.size());
    if (rest.starts_with(": ")) return number_in(rest.substr(2));
    if (rest.starts_with(" ")) return number_in(rest);
  }
  return std::nullopt;
}

/// The names of files of a control group, by the version of the interface.
struct Interface {
  const char* folder;
  const char* limit;
  const char* used;
  const char* cached[2];  ///< in memory.stat: of files, which the system takes back
};
constexpr Interface kVersion1 = {
    "memory", "memory.limit_in_bytes", "memory.usage_in_bytes", {"total_inactive_file", "total_active_file"}};
constexpr Interface kVersion2 = {"", "memory.max", "memory.current", {"inactive_file", "active_file"}};

void apply_limit(const fs::path& group, const Interface& names, HostMemory& memory) {
  const auto limit = number_in(text_of(group / names.limit));  // or "max"
  if (!limit) return;
  memory.total = std::min(memory.total, *limit);
  memory.available = std::min(memory.available, memory.total);
  const auto used = number_in(text_of(group / names.used));
  if (!used) return;
  const std::string statistics = text_of(group / "memory.stat");
  int64_t taken = *used;
  for (const char* cached : names.cached) taken -= value_of(statistics, cached).value_or(0);
  memory.available = std::min(memory.available, std::max<int64_t>(*limit - std::max<int64_t>(taken, 0), 0));
}

}  // namespace

std::optional<HostMemory> host_memory(const fs::path& root) {
  constexpr int64_t kKiB = 1024;
  const std::string machine = text_of(root / "proc" / "meminfo");
  const auto total = value_of(machine, "MemTotal"), available = value_of(machine, "MemAvailable");
  if (!total || !available) return std::nullopt;
  HostMemory memory{*total * kKiB, *available * kKiB};
  std::istringstream groups(text_of(root / "proc" / "self" / "cgroup"));  // "4:memory:/a/b" or "0::/a/b"
  for (std::string line; std::getline(groups, line);) {
    const size_t first = line.find(':'), second = line.find(':', first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = detail::concat(",", line.substr(first + 1, second - first - 1), ",");
    const bool version_2 = controllers == ",,";
    if (!version_2 && controllers.find(",memory,") == std::string::npos) continue;
    const Interface& names = version_2 ? kVersion2 : kVersion1;
    const fs::path top = root / "sys" / "fs" / "cgroup" / names.folder;
    // A container may see its own group, or one above, as the top.
    for (fs::path group = fs::path(line.substr(second + 1)).relative_path();; group = group.parent_path()) {
      apply_limit(top / group, names, memory);
      if (group.empty()) break;
    }
  }
  return memory;
}

}  // namespace lighthouse

#include "train/metrics_lines.h"

#include <algorithm>
#include <limits>
#include <string_view>

#include "io/errors.h"
#include "io/json_text.h"

namespace lighthouse {
namespace {

/// The largest number, which is later than any step of a run, where the line is none of a step.
int64_t step_of(std::string_view line) {
  try {
    return whole_member(parse_json(line, "line"), "step");
  } catch (const DamagedFile&) {
    return std::numeric_limits<int64_t>::max();
  }
}

}  // namespace

bool keep_lines_up_to(int64_t step, std::string& text) {
  const bool has_end = text.empty() || text.back() == '\n';
  if (!has_end) text += '\n';
  size_t kept = 0;
  for (size_t begin = 0, next = 0; begin < text.size(); begin = next) {
    next = text.find('\n', begin) + 1;
    if (step_of(std::string_view(text).substr(begin, next - 1 - begin)) > step) continue;
    std::copy(text.begin() + static_cast<int64_t>(begin), text.begin() + static_cast<int64_t>(next),
              text.begin() + static_cast<int64_t>(kept));
    kept += next - begin;
  }
  const bool changed = !has_end || kept < text.size();
  text.resize(kept);
  return changed;
}

}  // namespace lighthouse

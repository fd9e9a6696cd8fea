// Lines of a metrics.jsonl that an earlier start of the run, or somebody else, has written.
#pragma once

#include <cstdint>
#include <string>

namespace lighthouse {

/// Leaves those of steps up to `step`, each with its end: lines of later steps go, and what is no line of a step, as a
/// crash leaves behind. Returns whether anything changed. Takes no more memory than its longest line needs.
bool keep_lines_up_to(int64_t step, std::string& text);

}  // namespace lighthouse

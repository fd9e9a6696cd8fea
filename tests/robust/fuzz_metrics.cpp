// metrics.jsonl of run folders: any text; what is left of it has lines of the steps that it may have, and stays as it
// is.
#include "io/json_text.h"
#include "robust/fuzz.h"
#include "train/metrics_lines.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  constexpr int64_t kStep = 2;
  std::string text(fuzz::text_of(data, size));
  keep_lines_up_to(kStep, text);
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = text.find('\n', begin);
    const auto line = parse_json(std::string_view(text).substr(begin, end - begin), "line");
    if (whole_member(line, "step") > kStep) std::abort();
  }
  if (keep_lines_up_to(kStep, text)) std::abort();
  return 0;
}

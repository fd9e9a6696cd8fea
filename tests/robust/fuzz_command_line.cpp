// Values of the command line: those of keys, lists of `--key value` on lines, are read or refused with ConfigError; any
// other text is shown as UTF-8 without control characters.
#include "config/schema.h"
#include "io/printable.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  const std::string text(fuzz::text_of(data, size));
  const std::string shown = printable(text);
  for (const char c : shown) {
    if ((static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t') || c == 0x7f) std::abort();
  }
  if (printable(shown) != shown) std::abort();
  std::vector<std::pair<std::string, std::string>> overrides;
  for (size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
    end = std::min(text.find('\n', begin), text.size());
    const std::string line = text.substr(begin, end - begin);
    const size_t space = std::min(line.find(' '), line.size());
    overrides.emplace_back(line.substr(0, space), space < line.size() ? line.substr(space + 1) : "");
  }
  try {
    RunConfig config;
    apply_overrides(config, overrides);
    validate(config);
  } catch (const ConfigError&) {
  }
  return 0;
}

// Configurations: read or refused with ConfigError, and what is accepted is written and read as the same.
#include "config/schema.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  try {
    RunConfig config;
    apply_toml(config, std::string(fuzz::text_of(data, size)), "fuzz.toml");
    const std::string text = to_toml(config);
    RunConfig again;
    apply_toml(again, text, "again.toml");
    if (to_toml(again) != text) std::abort();
    validate(config);
  } catch (const ConfigError&) {
  }
  return 0;
}

// Any JSON of others: read or refused with DamagedFile; both readers of src/io agree, and values can be shown.
#include "io/json_text.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  const std::string_view text = fuzz::text_of(data, size);
  try {
    const nlohmann::json value = parse_json(text, "file.json");
    excerpt(value);
    if (!value.is_object()) return 0;
    size_t members = 0;
    read_json_members(text, "file.json", [&](const std::string& name, const nlohmann::json& member) {
      if (value.at(name) != member) std::abort();
      ++members;
    });
    if (members != value.size()) std::abort();
  } catch (const DamagedFile&) {
  }
  return 0;
}

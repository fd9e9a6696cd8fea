// Manifests of checkpoints: read or refused with DamagedFile, and what is accepted is written and read as the same.
#include "io/errors.h"
#include "io/manifest.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  try {
    const Manifest manifest = parse_manifest(std::string(fuzz::text_of(data, size)), "manifest.json");
    const std::string text = manifest_text(manifest);
    if (manifest_text(parse_manifest(text, "again")) != text) std::abort();
    check_ranges(manifest);
  } catch (const DamagedFile&) {
  }
  return 0;
}

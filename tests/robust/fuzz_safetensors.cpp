// Headers of safetensors files: read or refused with DamagedFile, and what is accepted can be read.
#include "io/errors.h"
#include "io/safetensors.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const fuzz::InputInFile file("safetensors");
  try {
    const SafetensorsFile tensors(file.with(fuzz::text_of(data, size)));
    std::vector<std::byte> bytes(size);
    for (const StoredTensor& tensor : tensors.tensors()) {
      tensors.read(tensor, std::span(bytes).first(static_cast<size_t>(tensor.bytes)));
      if (tensors.tensor(tensor.name).begin != tensor.begin) std::abort();
    }
  } catch (const DamagedFile&) {
  }
  return 0;
}

// Indices of weights in shards: refused with DamagedFile, or all that they name are files in the folder.
#include "io/errors.h"
#include "model/huggingface_config.h"
#include "model/weight_files.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const fuzz::Folder folder;
  folder.write(kHuggingfaceIndexFile, fuzz::text_of(data, size));
  try {
    for (const std::filesystem::path& file : weight_files(folder.path())) {
      if (file.lexically_normal().parent_path() != folder.path()) std::abort();
    }
  } catch (const DamagedFile&) {
  }
  return 0;
}

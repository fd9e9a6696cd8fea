// Manifests of corpora of lighthouse-prepare: of another program, read, or refused with DamagedFile or InvalidArgument
// (another tokenizer than the model's).
#include "io/errors.h"
#include "lighthouse/check.h"
#include "robust/fuzz.h"
#include "train/prepared_corpus.h"

namespace {

template <typename Read>
void read_or_refuse(const Read& read) {
  try {
    read();
  } catch (const lighthouse::DamagedFile&) {
  } catch (const lighthouse::InvalidArgument&) {
  }
}

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const fuzz::Folder folder;
  folder.write("manifest.json", fuzz::text_of(data, size));
  DataConfig config;
  config.path = folder.path() / "train";
  read_or_refuse([&] { prepared_folder(folder.path()); });
  read_or_refuse([&] { prepared_vocabulary(config); });
  read_or_refuse([&] { check_vocabulary(config, 256); });
  read_or_refuse([&] { check_tokenizer(config, folder.path(), 256); });
  return 0;
}

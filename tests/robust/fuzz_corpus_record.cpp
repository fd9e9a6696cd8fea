// corpus.txt of run folders: any text gives a line that can be shown.
#include "io/printable.h"
#include "robust/fuzz.h"
#include "train/corpus_record.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const fuzz::Folder folder;
  folder.write(kCorpusFile, fuzz::text_of(data, size));
  corpus_changes(folder.path(), {{"a.txt", 40000}, {"sub/b c.txt", 13}});
  return 0;
}

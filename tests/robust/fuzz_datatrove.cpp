// Indices of datatrove beside 64 bytes of tokens: read or refused with InvalidArgument, and what is accepted can be
// read.
#include "data/token_source.h"
#include "lighthouse/check.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const fuzz::Folder folder;
  folder.write("corpus.ds", std::string(64, '\1'));
  folder.write("corpus.ds.index", fuzz::text_of(data, size));
  try {
    const auto source = open_source(folder.path() / "corpus.ds", CorpusFormat::kDatatrove, {});
    std::vector<int64_t> tokens(static_cast<size_t>(source->num_tokens()));
    source->read(0, tokens);
  } catch (const InvalidArgument&) {
  }
  return 0;
}

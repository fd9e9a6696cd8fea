// What this program itself reads of the tokenizers of others, tokenizer.json and the tokens that end a text: read or
// refused with DamagedFile.
#include "data/tokenizer.h"
#include "io/errors.h"
#include "model/token_numbers.h"
#include "model/tokenizer_files.h"
#include "robust/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const fuzz::Folder folder, bytes;
  static const bool written = (bytes.write("tokenizer.json", byte_tokenizer().dump()), true);
  folder.write("tokenizer.json", fuzz::text_of(data, size));
  folder.write("generation_config.json", fuzz::text_of(data, size));
  has_text_tokenizer(folder.path());
  try {
    tokenizer_difference(folder.path(), bytes.path());
  } catch (const DamagedFile&) {
  }
  try {
    for (const int64_t token : end_tokens(folder.path())) {
      if (token < 0) std::abort();
    }
  } catch (const DamagedFile&) {
  }
  return written ? 0 : 1;
}

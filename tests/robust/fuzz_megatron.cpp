// Indices of Megatron-LM beside 64 bytes of data: read or refused with InvalidArgument, and what is accepted can be
// read.
#include <filesystem>
#include <fstream>

#include "data/token_source.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "robust/fuzz.h"

namespace {

/// A folder in memory with data of which the index is the input; it goes with the process.
struct Corpus {
  std::string folder = "/dev/shm/lighthouse-fuzz-" + std::to_string(::getpid());
  std::string prefix = folder + "/corpus";
  Corpus() {
    std::filesystem::create_directory(folder);
    std::filesystem::path data = prefix + ".bin";
    std::ofstream(data) << std::string(64, '\1');
  }
  ~Corpus() { std::filesystem::remove_all(folder); }
};

}  // namespace

int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lighthouse;
  static const Corpus corpus;
  std::ofstream(corpus.prefix + ".idx", std::ios::binary) << fuzz::text_of(data, size);
  try {
    const auto source = open_source(corpus.prefix, CorpusFormat::kMegatron, {});
    std::vector<int64_t> tokens(static_cast<size_t>(source->num_tokens()));
    source->read(0, tokens);
  } catch (const InvalidArgument&) {
  }
  return 0;
}

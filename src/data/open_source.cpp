// Finds out which format a corpus has.
#include <filesystem>

#include "data/corpus_files.h"
#include "data/datatrove_source.h"
#include "data/token_source.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

bool exists(const std::string& path) {
  std::error_code error;
  return fs::exists(path, error);
}

/// PREFIX of PREFIX, PREFIX.bin or PREFIX.idx.
std::string megatron_prefix(const std::string& path) {
  for (const char* ending : {".bin", ".idx"}) {
    if (path.ends_with(ending)) return path.substr(0, path.size() - 4);
  }
  return path;
}

void check_names(const std::string& path, const TokenSource& source) {
  if (!fs::is_directory(path)) return refuse_what_is_not_text(path);
  for (const CorpusFile& file : source.files()) refuse_what_is_not_text(fs::path(path) / file.name);
}

}  // namespace

CorpusFormat detect_format(const std::string& path) {
  if (is_datatrove(path)) return CorpusFormat::kDatatrove;
  const std::string prefix = megatron_prefix(path);
  const bool bin = exists(prefix + ".bin");
  const bool idx = exists(prefix + ".idx");
  const bool pair = bin && idx;
  LIGHTHOUSE_CHECK(bin == idx || (prefix == path && exists(path)), "data: '", prefix, bin ? ".idx" : ".bin",
                   "' is missing: a Megatron-LM data set is a pair; to read '", path,
                   "' as text set data.format = \"text\"");
  if (prefix != path) return CorpusFormat::kMegatron;
  LIGHTHOUSE_CHECK(!(pair && exists(path)), "data: '", path, "' is there as text and as a Megatron-LM pair (", path,
                   ".bin); set data.format to text or megatron");
  return pair ? CorpusFormat::kMegatron : CorpusFormat::kText;
}

std::unique_ptr<TokenSource> open_source(const std::string& path, CorpusFormat format,
                                         const std::vector<std::string>& extensions) {
  LIGHTHOUSE_CHECK(!path.empty(), "data: no corpus; set data.path to a text file, a folder or a Megatron-LM prefix");
  const CorpusFormat chosen = format == CorpusFormat::kAuto ? detect_format(path) : format;
  if (chosen == CorpusFormat::kMegatron) return open_megatron_source(megatron_prefix(path));
  if (chosen == CorpusFormat::kDatatrove) return open_datatrove_source(path);
  std::unique_ptr<TokenSource> source = open_text_source(path, extensions);
  if (format == CorpusFormat::kAuto) check_names(path, *source);
  return source;
}

}  // namespace lighthouse

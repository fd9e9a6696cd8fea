#include "train/corpus_record.h"

#include <map>
#include <sstream>

#include "io/durable_file.h"
#include "io/input_file.h"
#include "io/json_text.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "train/text.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

using FileSizes = std::map<std::string, int64_t>;  // by quoted name: one line each, whatever a name holds

FileSizes read_record(const fs::path& path) {
  FileSizes sizes;
  std::istringstream lines(read_text_file(path));
  int64_t bytes = 0;
  for (std::string name; lines >> bytes && lines.get() == ' ' && std::getline(lines, name);) sizes[name] = bytes;
  return sizes;
}

}  // namespace

void record_corpus(const fs::path& run_dir, const std::vector<CorpusFile>& files) {
  std::string text;
  for (const CorpusFile& file : files) text += std::to_string(file.bytes) + " " + json_string(file.name) + "\n";
  write_file_durably(run_dir / kCorpusFile, text);
}

std::string corpus_changes(const fs::path& run_dir, const std::vector<CorpusFile>& files) {
  if (!fs::exists(run_dir / kCorpusFile)) return "";
  FileSizes recorded = read_record(run_dir / kCorpusFile);
  std::vector<std::string> changes;
  for (const CorpusFile& file : files) {
    const auto found = recorded.find(json_string(file.name));
    if (found == recorded.end()) {
      changes.push_back(quoted(file.name) + " is new");
      continue;
    }
    if (found->second != file.bytes) {
      changes.push_back(detail::concat(quoted(file.name), " has ", file.bytes, " bytes instead of ", found->second));
    }
    recorded.erase(found);
  }
  for (const auto& [name, bytes] : recorded) changes.push_back(shortened(name) + " is gone");
  return listed(changes, 5);
}

}  // namespace lighthouse

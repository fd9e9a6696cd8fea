// RUN/corpus.txt: the files that a run is trained on, by which a later start can say what has changed.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "data/token_source.h"

namespace lighthouse {

inline constexpr const char* kCorpusFile = "corpus.txt";

/// Writes a line for each file, "BYTES NAME". Throws std::system_error.
void record_corpus(const std::filesystem::path& run_dir, const std::vector<CorpusFile>& files);

/// "'a.txt' is new, 'b.txt' is gone, 'c.txt' has 12 bytes instead of 10", the first few; "" when the files are those of
/// the record or there is none.
std::string corpus_changes(const std::filesystem::path& run_dir, const std::vector<CorpusFile>& files);

}  // namespace lighthouse

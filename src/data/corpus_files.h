// Which files of a folder are text to train on.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace lighthouse {

/// The files of a folder and of the folders in it whose names end in one of `extensions` (any when empty), relative to
/// the folder, in byte order. Links to files are followed, links to folders are not. Left out is what is not text to
/// learn from: files and folders whose names begin with a dot; folders that hold a run, or a model of transformers; and
/// of `folder` itself, when it is a run folder, what the run wrote. Throws InvalidArgument when a folder cannot be
/// listed.
std::vector<std::string> list_corpus_files(const std::filesystem::path& folder,
                                           const std::vector<std::string>& extensions);

/// Throws InvalidArgument, saying what would do, for a file that is not text by its name: compressed, or an archive,
/// arrays, a table, weights, ...
void refuse_what_is_not_text(const std::filesystem::path& file);

}  // namespace lighthouse

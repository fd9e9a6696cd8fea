// Files of tokens as datatrove writes and nanotron reads them.
#pragma once

#include <filesystem>
#include <memory>

#include "data/token_source.h"

namespace lighthouse {

/// Whether a path is a file NAME.ds, or a folder with such files, and what belongs to them, alone.
bool is_datatrove(const std::filesystem::path& path);

/// NAME.ds, or the files *.ds of a folder in the byte order of their names, one after another. NAME.ds holds tokens,
/// uint16 or uint32, one document after another; NAME.ds.index beside it u64 where each document ends, in tokens of its
/// file. Throws InvalidArgument, naming the file and what would do, when a file is missing or damaged, when the two do
/// not fit one another, and for files with a mask of the loss (NAME.ds.loss), which is not read.
std::unique_ptr<TokenSource> open_datatrove_source(const std::filesystem::path& path);

}  // namespace lighthouse

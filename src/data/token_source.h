// A corpus as one stream of tokens, whatever files it lies in.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "config/choices.h"

namespace lighthouse {

struct CorpusFile {
  std::string name;  ///< relative to the corpus
  int64_t bytes = 0;
};

/// The documents of a corpus laid one after another, in a fixed order. Reading is safe from several threads.
class TokenSource {
 public:
  virtual ~TokenSource() = default;
  TokenSource(const TokenSource&) = delete;
  TokenSource& operator=(const TokenSource&) = delete;

  /// [num_documents + 1] token offsets from 0 to num_tokens(), increasing: empty documents are left out.
  const std::vector<int64_t>& document_offsets() const { return document_offsets_; }
  int64_t num_documents() const { return static_cast<int64_t>(document_offsets_.size()) - 1; }
  int64_t num_tokens() const { return document_offsets_.back(); }

  /// Tokens [begin, begin + tokens.size()), unchecked values. Throws std::system_error or DamagedFile when a file
  /// changed since it was opened.
  virtual void read(int64_t begin, std::span<int64_t> tokens) const = 0;

  /// Where a token stands, for messages: file and position in it.
  virtual std::string describe(int64_t token) const = 0;

  /// What the corpus was read from, in its order.
  virtual std::vector<CorpusFile> files() const = 0;

  /// Checksum of names and sizes, and of a Megatron index; not of a folder's place.
  const std::string& fingerprint() const { return fingerprint_; }

 protected:
  TokenSource() = default;
  std::vector<int64_t> document_offsets_ = {0};
  std::string fingerprint_;
};

/// The format that "auto" stands for at a path. Throws InvalidArgument for one that is none, or two.
CorpusFormat detect_format(const std::string& path);

/// Opens a corpus, its format found out when it is "auto". Throws InvalidArgument, naming the file and what would do,
/// when it is missing, empty, unreadable or damaged.
std::unique_ptr<TokenSource> open_source(const std::string& path, CorpusFormat format,
                                         const std::vector<std::string>& extensions);

/// A text file, or the files of a folder and the folders in it whose names end in one of `extensions` (any when empty),
/// sorted by path (corpus_files.h says which are left out). Tokens are bytes; a file is a document.
std::unique_ptr<TokenSource> open_text_source(const std::string& path, const std::vector<std::string>& extensions);

/// PREFIX.bin and PREFIX.idx as Megatron-LM writes them: the index is
///   "MMIDIDX\0\0", u64 version = 1, u8 dtype, u64 num_sequences, u64 num_document_offsets,
///   i32 size of each sequence in tokens, i64 byte offset of each in the .bin, i64 first sequence of each document and
///   num_sequences at the end,
/// with dtypes 1 uint8, 2 int8, 3 int16, 4 int32, 5 int64, 6 float64, 7 float32, 8 uint16. Sequences lie in the .bin
/// one after another, without gaps.
std::unique_ptr<TokenSource> open_megatron_source(const std::string& prefix);

/// Checksum of what the tokens are: 256 stretches of 4,096, spread evenly from the first token to the last, so all of a
/// small corpus and 1 MiB of any larger one. Throws as read does.
std::string content_checksum(const TokenSource& source);

/// Reads tokens that must be in [0, vocab_size); throws InvalidArgument naming file, position and value.
void read_checked(const TokenSource& source, int64_t begin, int64_t vocab_size, std::span<int64_t> tokens);

}  // namespace lighthouse

// Bytes of text files as tokens.
#include <algorithm>
#include <deque>
#include <filesystem>
#include <mutex>
#include <system_error>

#include "data/corpus_files.h"
#include "data/token_source.h"
#include "io/checksum.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

// Files kept open at once: a corpus of a few large files opens each once, one of many small ones is far from the limits
// of a process (1,024 files by default).
constexpr size_t kMaxOpen = 16;

/// Size of a file that can be opened for reading.
int64_t readable_size(const fs::path& path) {
  try {
    return InputFile(path).size();
  } catch (const DamagedFile&) {
    LIGHTHOUSE_CHECK(false, "data: '", path.string(), "' is neither a file nor a folder");
  } catch (const std::system_error& error) {
    LIGHTHOUSE_CHECK(false, "data: ", error.what(), "; set data.path to readable text or a Megatron-LM prefix");
  }
  return 0;
}

/// Opens files when they are first read and keeps the latest ones open.
class TextSource final : public TokenSource {
 public:
  TextSource(const std::string& path, const std::vector<std::string>& extensions) : root_(path) {
    std::error_code missing;  // reported by readable_size
    const bool is_folder = fs::is_directory(root_, missing);
    const std::vector<std::string> names =
        is_folder ? list_corpus_files(root_, extensions) : std::vector<std::string>{""};
    Checksum checksum;
    for (const std::string& name : names) {
      const int64_t size = readable_size(full_path(name));
      if (size == 0) continue;
      names_.push_back(name);
      document_offsets_.push_back(num_tokens() + size);
      const std::string line = name + '\n' + std::to_string(size) + '\n';
      checksum.update(std::as_bytes(std::span(line)));
    }
    fingerprint_ = checksum.hex();
    open_.resize(names_.size());
    LIGHTHOUSE_CHECK(num_tokens() > 0, "data: '", path, "' is empty",
                     is_folder ? ": hidden files, runs and models apart, no file with a byte in it" : "",
                     is_folder && !extensions.empty() ? " whose name ends as data.extensions asks" : "",
                     "; set data.path to text");
  }

  void read(int64_t begin, std::span<int64_t> tokens) const override {
    const auto bytes = std::make_unique_for_overwrite<std::byte[]>(tokens.size());
    for (size_t document = document_of(begin); !tokens.empty(); ++document) {
      const int64_t skipped = begin - document_offsets_[document];
      const int64_t left = document_offsets_[document + 1] - begin;
      const auto count = std::min(tokens.size(), static_cast<size_t>(left));
      open(document)->read(skipped, std::span(bytes.get(), count));
      for (size_t position = 0; position < count; ++position)
        tokens[position] = std::to_integer<int64_t>(bytes[position]);
      tokens = tokens.subspan(count);
      begin += static_cast<int64_t>(count);
    }
  }

  std::string describe(int64_t token) const override {
    const size_t document = document_of(token);
    return detail::concat("byte ", token - document_offsets_[document], " of '", full_path(names_[document]).string(),
                          "'");
  }

  std::vector<CorpusFile> files() const override {
    std::vector<CorpusFile> files;
    for (size_t document = 0; document < names_.size(); ++document) {
      files.push_back({names_[document].empty() ? root_.filename().string() : names_[document], length(document)});
    }
    return files;
  }

 private:
  int64_t length(size_t document) const { return document_offsets_[document + 1] - document_offsets_[document]; }
  fs::path full_path(const std::string& name) const { return name.empty() ? root_ : root_ / name; }

  size_t document_of(int64_t token) const {
    const auto after = std::upper_bound(document_offsets_.begin(), document_offsets_.end(), token);
    return static_cast<size_t>(after - document_offsets_.begin() - 1);
  }

  std::shared_ptr<const InputFile> open(size_t document) const {
    const std::scoped_lock lock(mutex_);
    if (open_[document]) return open_[document];
    auto file = std::make_shared<const InputFile>(full_path(names_[document]));
    if (file->size() != length(document)) {
      throw DamagedFile(detail::concat("data: '", full_path(names_[document]).string(), "' had ", length(document),
                                       " bytes when the run started and has ", file->size(), " now"));
    }
    if (opening_order_.size() == kMaxOpen) {
      open_[opening_order_.front()].reset();  // readers of it hold their own share
      opening_order_.pop_front();
    }
    opening_order_.push_back(document);
    open_[document] = file;
    return file;
  }

  fs::path root_;
  std::vector<std::string> names_;  ///< [num_documents], relative to root_; one empty name when root_ is a file
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<const InputFile>> open_;  ///< [num_documents], null where not open
  mutable std::deque<size_t> opening_order_;                    ///< documents that are open, oldest first
};

}  // namespace

std::unique_ptr<TokenSource> open_text_source(const std::string& path, const std::vector<std::string>& extensions) {
  return std::make_unique<TextSource>(path, extensions);
}

}  // namespace lighthouse

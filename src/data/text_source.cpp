// Bytes of text files as tokens.
#include <fcntl.h>
#include <sys/stat.h>

#include <algorithm>
#include <deque>
#include <filesystem>
#include <mutex>
#include <system_error>

#include "data/token_source.h"
#include "io/checksum.h"
#include "io/errors.h"
#include "io/mapped_file.h"
#include "io/posix.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

// Mappings kept at once: far below the kernel's limit of 65,530, enough for the files of several sequences.
constexpr size_t kMaxMapped = 1024;

bool has_ending(const std::string& name, const std::vector<std::string>& extensions) {
  return extensions.empty() || std::any_of(extensions.begin(), extensions.end(),
                                           [&](const std::string& ending) { return name.ends_with(ending); });
}

/// Paths relative to the folder, in byte order.
std::vector<std::string> list_files(const std::string& folder, const std::vector<std::string>& extensions) {
  std::vector<std::string> names;
  try {
    for (const fs::directory_entry& entry : fs::recursive_directory_iterator(folder)) {
      std::error_code dangling;  // links to nothing and in circles are no files
      if (entry.is_regular_file(dangling) && has_ending(entry.path().filename().string(), extensions)) {
        names.push_back(entry.path().lexically_relative(folder).generic_string());
      }
    }
  } catch (const fs::filesystem_error& error) {
    LIGHTHOUSE_CHECK(false, "data: cannot list '", folder, "': ", error.what());
  }
  std::sort(names.begin(), names.end());
  return names;
}

/// Size of a file that can be opened for reading.
int64_t readable_size(const fs::path& path) {
  try {
    const FileDescriptor file = open_file(path, O_RDONLY | O_NONBLOCK);
    struct stat status {};
    if (::fstat(file.get(), &status) != 0) throw_system_error(errno, "cannot read", path);
    LIGHTHOUSE_CHECK(S_ISREG(status.st_mode), "data: '", path.string(), "' is neither a file nor a folder");
    return status.st_size;
  } catch (const std::system_error& error) {
    LIGHTHOUSE_CHECK(false, "data: ", error.what(), "; set data.path to readable text or a Megatron-LM prefix");
  }
  return 0;
}

/// Maps files when they are first read and keeps the latest mapped ones, so that neither open files nor mappings grow
/// with the number of files.
class TextSource final : public TokenSource {
 public:
  TextSource(const std::string& path, const std::vector<std::string>& extensions) : root_(path) {
    std::error_code missing;  // reported by readable_size
    const bool is_folder = fs::is_directory(root_, missing);
    const std::vector<std::string> names = is_folder ? list_files(path, extensions) : std::vector<std::string>{""};
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
    mapped_.resize(names_.size());
    LIGHTHOUSE_CHECK(num_tokens() > 0, "data: '", path, "' is empty", is_folder ? ": no file with a byte in it" : "",
                     is_folder && !extensions.empty() ? " whose name ends as data.extensions asks" : "",
                     "; set data.path to text");
  }

  void read(int64_t begin, std::span<int64_t> tokens) const override {
    for (size_t document = document_of(begin); !tokens.empty(); ++document) {
      const int64_t skipped = begin - document_offsets_[document];
      const int64_t left = document_offsets_[document + 1] - begin;
      const auto count = std::min(tokens.size(), static_cast<size_t>(left));
      const std::shared_ptr<const MappedFile> file = map(document);
      const std::byte* bytes = file->bytes().data() + skipped;
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

 private:
  fs::path full_path(const std::string& name) const { return name.empty() ? root_ : root_ / name; }

  size_t document_of(int64_t token) const {
    const auto after = std::upper_bound(document_offsets_.begin(), document_offsets_.end(), token);
    return static_cast<size_t>(after - document_offsets_.begin() - 1);
  }

  std::shared_ptr<const MappedFile> map(size_t document) const {
    const std::scoped_lock lock(mutex_);
    if (mapped_[document]) return mapped_[document];
    auto file = std::make_shared<const MappedFile>(full_path(names_[document]));
    const int64_t expected = document_offsets_[document + 1] - document_offsets_[document];
    if (static_cast<int64_t>(file->bytes().size()) != expected) {
      throw DamagedFile(detail::concat("data: '", full_path(names_[document]).string(), "' had ", expected,
                                       " bytes when the run started and has ", file->bytes().size(), " now"));
    }
    if (mapping_order_.size() == kMaxMapped) {
      mapped_[mapping_order_.front()].reset();  // readers of it hold their own share
      mapping_order_.pop_front();
    }
    mapping_order_.push_back(document);
    mapped_[document] = file;
    return file;
  }

  fs::path root_;
  std::vector<std::string> names_;  ///< [num_documents], relative to root_; one empty name when root_ is a file
  mutable std::mutex mutex_;
  mutable std::vector<std::shared_ptr<const MappedFile>> mapped_;  ///< [num_documents], null where not mapped
  mutable std::deque<size_t> mapping_order_;                       ///< documents that are mapped, oldest first
};

}  // namespace

std::unique_ptr<TokenSource> open_text_source(const std::string& path, const std::vector<std::string>& extensions) {
  return std::make_unique<TextSource>(path, extensions);
}

}  // namespace lighthouse

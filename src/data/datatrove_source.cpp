#include "data/datatrove_source.h"

#include <algorithm>
#include <cstring>
#include <system_error>

#include "data/open_or_refuse.h"
#include "data/widen.h"
#include "io/checksum.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kTokensEnding = ".ds";
constexpr const char* kDatatrovePair = "a file of datatrove is NAME.ds with NAME.ds.index";

std::vector<fs::path> list_files(const fs::path& path) {
  if (!fs::is_directory(path)) return {path};
  std::vector<fs::path> files;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(path, error)) {
    if (entry.path().extension() == kTokensEnding) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

fs::path beside(const fs::path& file, const char* ending) { return file.string() + ending; }

class DatatroveSource final : public TokenSource {
 public:
  explicit DatatroveSource(const fs::path& path) {
    Checksum checksum;
    for (const fs::path& file : list_files(path)) add_file(file, checksum);
    fingerprint_ = checksum.hex();
    LIGHTHOUSE_CHECK(num_tokens() > 0, "data: '", path.string(),
                     "' holds no token; set data.path to a data set with text");
  }

  /// A file is opened for each reading: there may be thousands.
  void read(int64_t begin, std::span<int64_t> tokens) const override {
    for (size_t file = file_of(begin); !tokens.empty(); ++file) {
      const int64_t skipped = begin - files_[file].begin;
      const auto count = std::min(tokens.size(), static_cast<size_t>(end_of(file) - begin));
      read_file_part(files_[file], skipped, tokens.first(count));
      tokens = tokens.subspan(count);
      begin += static_cast<int64_t>(count);
    }
  }

  std::string describe(int64_t token) const override {
    const File& file = files_[file_of(token)];
    return detail::concat("token ", token - file.begin, " of '", file.path.string(), "'");
  }

  std::vector<CorpusFile> files() const override {
    std::vector<CorpusFile> files;
    for (const File& file : files_) files.push_back({file.path.filename().string(), file.bytes});
    return files;
  }

 private:
  struct File {
    fs::path path;
    int64_t bytes;
    int64_t begin;  ///< token of the corpus
    int64_t width;  ///< bytes of a token
  };

  int64_t end_of(size_t file) const { return file + 1 < files_.size() ? files_[file + 1].begin : num_tokens(); }
  size_t file_of(int64_t token) const {
    const auto after = std::upper_bound(files_.begin(), files_.end(), token,
                                        [](int64_t wanted, const File& file) { return wanted < file.begin; });
    return static_cast<size_t>(after - files_.begin() - 1);
  }

  void add_file(const fs::path& path, Checksum& checksum) {
    LIGHTHOUSE_CHECK(
        !fs::exists(beside(path, ".loss")), "data: '", path.string(),
        "' has a mask of the loss beside it, which is not read; write the data set without save_loss_metadata");
    const int64_t bytes = open_or_refuse(kDatatrovePair, [&] { return InputFile(path).size(); });
    const fs::path index_path = beside(path, ".index");
    const std::vector<std::byte> index = open_or_refuse(kDatatrovePair, [&] { return read_file(index_path); });
    const int64_t begin = num_tokens();
    add_documents(index, index_path);
    const std::string name = path.filename().string();
    checksum.update(std::as_bytes(std::span(name)));
    checksum.update(index);
    const int64_t count = num_tokens() - begin;
    const int64_t width = count == 0 ? 0 : bytes / count;
    LIGHTHOUSE_CHECK(bytes == count * width && (count == 0 || width == 2 || width == 4), "data: '", path.string(),
                     "' has ", bytes, " bytes and its index lists ", count,
                     " tokens, of 2 or 4 bytes each; one of the two is truncated, or of another data set");
    if (count > 0) files_.push_back({path, bytes, begin, width});
  }

  void add_documents(std::span<const std::byte> index, const fs::path& path) {
    LIGHTHOUSE_CHECK(index.size() % sizeof(uint64_t) == 0, "data: '", path.string(), "' has ", index.size(),
                     " bytes, not a multiple of 8; it is truncated");
    std::vector<uint64_t> ends(index.size() / sizeof(uint64_t));
    if (!ends.empty()) std::memcpy(ends.data(), index.data(), index.size());
    constexpr uint64_t kMostTokens = uint64_t{1} << 48;
    const int64_t begin = num_tokens();
    uint64_t previous = 0;
    for (const uint64_t end : ends) {
      LIGHTHOUSE_CHECK(end >= previous && end < kMostTokens, "data: '", path.string(), "': a document ends at token ",
                       end, " and the one before it at ", previous, "; ends must not decrease");
      if (end > previous) document_offsets_.push_back(begin + static_cast<int64_t>(end));
      previous = end;
    }
  }

  static void read_file_part(const File& file, int64_t begin, std::span<int64_t> tokens) {
    const InputFile input(file.path);
    const size_t num_bytes = tokens.size() * static_cast<size_t>(file.width);
    const auto bytes = std::make_unique_for_overwrite<std::byte[]>(num_bytes);
    input.read(begin * file.width, {bytes.get(), num_bytes});
    (file.width == 2 ? widen<uint16_t> : widen<uint32_t>)(bytes.get(), tokens);
  }

  std::vector<File> files_;  ///< those with a token
};

}  // namespace

bool is_datatrove(const fs::path& path) {
  if (!fs::is_directory(path)) return path.extension() == kTokensEnding;
  std::error_code error;
  const fs::directory_iterator entries(path, error);
  return !list_files(path).empty() && std::all_of(begin(entries), end(entries), [](const fs::directory_entry& entry) {
    return entry.path().filename().string().find(kTokensEnding) != std::string::npos;
  });
}

std::unique_ptr<TokenSource> open_datatrove_source(const fs::path& path) {
  return std::make_unique<DatatroveSource>(path);
}

}  // namespace lighthouse

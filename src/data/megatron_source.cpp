// Megatron-LM's indexed data sets.
#include <cstring>
#include <limits>
#include <system_error>

#include "data/open_or_refuse.h"
#include "data/token_source.h"
#include "data/widen.h"
#include "io/checksum.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "lighthouse/check.h"

namespace lighthouse {

namespace {

constexpr const char* kMegatronPair = "a Megatron-LM data set is a pair PREFIX.bin and PREFIX.idx";
constexpr char kMagic[] = {'M', 'M', 'I', 'D', 'I', 'D', 'X', '\0', '\0'};

struct TokenType {
  size_t bytes;
  void (*widen)(const std::byte* data, std::span<int64_t> out);
};

/// By the dtype code of the index.
TokenType token_type(int code, const std::string& path) {
  switch (code) {
    case 1:
      return {1, widen<uint8_t>};
    case 2:
      return {1, widen<int8_t>};
    case 3:
      return {2, widen<int16_t>};
    case 4:
      return {4, widen<int32_t>};
    case 5:
      return {8, widen<int64_t>};
    case 6:
      return {8, widen<double>};
    case 7:
      return {4, widen<float>};
    case 8:
      return {2, widen<uint16_t>};
    default:
      break;
  }
  LIGHTHOUSE_CHECK(false, "data: '", path, "': dtype code ", code, " is not one of Megatron-LM's, 1 to 8");
  return {};
}

/// Takes an index apart from front to back, never past its end.
class IndexReader {
 public:
  IndexReader(std::span<const std::byte> bytes, std::string path) : rest_(bytes), path_(std::move(path)) {}

  std::span<const std::byte> take(uint64_t count, uint64_t width, const char* what) {
    LIGHTHOUSE_CHECK(count <= rest_.size() / width, "data: '", path_, "' is truncated: ", what, " take ", count, " x ",
                     width, " bytes and ", rest_.size(), " are left; write the index again");
    const auto taken = rest_.first(count * width);
    rest_ = rest_.subspan(count * width);
    return taken;
  }
  template <typename T>
  T take_value(const char* what) {
    T value;
    std::memcpy(&value, take(1, sizeof(T), what).data(), sizeof(T));
    return value;
  }
  void expect_end() const {
    LIGHTHOUSE_CHECK(rest_.empty(), "data: '", path_, "' has ", rest_.size(),
                     " bytes after its arrays; indices of multimodal data are not read");
  }

 private:
  std::span<const std::byte> rest_;
  std::string path_;
};

template <typename T>
T element(std::span<const std::byte> array, uint64_t index) {
  T value;
  std::memcpy(&value, array.data() + index * sizeof(T), sizeof(T));
  return value;
}

class MegatronSource final : public TokenSource {
 public:
  explicit MegatronSource(const std::string& prefix)
      : index_path_(prefix + ".idx"),
        data_path_(prefix + ".bin"),
        data_(open_or_refuse(kMegatronPair, [&] { return InputFile(data_path_); })) {
    const std::vector<std::byte> index = open_or_refuse(kMegatronPair, [&] { return read_file(index_path_); });
    read_index(index);
    LIGHTHOUSE_CHECK(num_tokens() > 0, "data: '", index_path_,
                     "' lists no token; set data.path to a data set with text");
    fingerprint_ = checksum(index);
    index_bytes_ = static_cast<int64_t>(index.size());
  }

  void read(int64_t begin, std::span<int64_t> tokens) const override {
    const size_t num_bytes = tokens.size() * type_.bytes;
    const auto bytes = std::make_unique_for_overwrite<std::byte[]>(num_bytes);
    data_.read(begin * static_cast<int64_t>(type_.bytes), {bytes.get(), num_bytes});
    type_.widen(bytes.get(), tokens);
  }
  std::vector<CorpusFile> files() const override { return {{".idx", index_bytes_}, {".bin", data_.size()}}; }
  std::string describe(int64_t token) const override {
    return detail::concat("token ", token, " of '", data_path_, "'");
  }

 private:
  void read_index(std::span<const std::byte> bytes) {
    IndexReader reader(bytes, index_path_);
    const auto magic = reader.take(sizeof kMagic, 1, "the first bytes");
    LIGHTHOUSE_CHECK(std::memcmp(magic.data(), kMagic, sizeof kMagic) == 0, "data: '", index_path_,
                     "' is not a Megatron-LM index: it does not begin with MMIDIDX");
    const auto version = reader.take_value<uint64_t>("version");
    LIGHTHOUSE_CHECK(version == 1, "data: '", index_path_, "': version ", version, " is unknown; 1 is read");
    type_ = token_type(reader.take_value<uint8_t>("dtype"), index_path_);
    const auto num_sequences = reader.take_value<uint64_t>("number of sequences");
    const auto num_offsets = reader.take_value<uint64_t>("number of document offsets");
    const auto sizes = reader.take(num_sequences, sizeof(int32_t), "sizes of sequences");
    const auto pointers = reader.take(num_sequences, sizeof(int64_t), "pointers to sequences");
    const auto documents = reader.take(num_offsets, sizeof(int64_t), "document offsets");
    reader.expect_end();
    read_documents(documents, num_offsets, read_sequences(sizes, pointers, num_sequences));
  }

  /// Token offsets [num_sequences + 1].
  std::vector<int64_t> read_sequences(std::span<const std::byte> sizes, std::span<const std::byte> pointers,
                                      uint64_t num_sequences) const {
    std::vector<int64_t> offsets = {0};
    offsets.reserve(num_sequences + 1);
    const auto width = static_cast<int64_t>(type_.bytes);
    const auto data_bytes = data_.size();
    for (uint64_t sequence = 0; sequence < num_sequences; ++sequence) {
      const auto size = element<int32_t>(sizes, sequence);
      const auto pointer = element<int64_t>(pointers, sequence);
      LIGHTHOUSE_CHECK(size >= 0, "data: '", index_path_, "': size ", size, " of sequence ", sequence, " is negative");
      LIGHTHOUSE_CHECK(pointer == offsets.back() * width, "data: '", index_path_, "': sequence ", sequence,
                       " points to byte ", pointer, " and the one before it ends at ", offsets.back() * width,
                       "; sequences must lie one after another");
      offsets.push_back(offsets.back() + size);
      LIGHTHOUSE_CHECK(offsets.back() <= data_bytes / width, "data: '", data_path_, "' has ", data_bytes,
                       " bytes and ends before sequence ", sequence, " of its index does; it is truncated");
    }
    LIGHTHOUSE_CHECK(offsets.back() * width == data_bytes, "data: '", data_path_, "' has ", data_bytes,
                     " bytes and its index lists ", offsets.back() * width, "; the two are not of one data set");
    return offsets;
  }

  void read_documents(std::span<const std::byte> documents, uint64_t num_offsets,
                      const std::vector<int64_t>& sequence_offsets) {
    const auto num_sequences = static_cast<int64_t>(sequence_offsets.size()) - 1;
    LIGHTHOUSE_CHECK(num_offsets >= 1 && element<int64_t>(documents, 0) == 0 &&
                         element<int64_t>(documents, num_offsets - 1) == num_sequences,
                     "data: '", index_path_, "': document offsets must run from 0 to the number of sequences, ",
                     num_sequences, "; end every document when the data set is built");
    int64_t previous = 0;
    for (uint64_t document = 1; document < num_offsets; ++document) {
      const auto end = element<int64_t>(documents, document);
      LIGHTHOUSE_CHECK(end >= previous && end <= num_sequences, "data: '", index_path_, "': document offset ", document,
                       " is ", end, " after ", previous, "; offsets must not decrease");
      previous = end;
      const int64_t end_token = sequence_offsets[static_cast<size_t>(end)];
      if (end_token > num_tokens()) document_offsets_.push_back(end_token);
    }
  }

  std::string index_path_, data_path_;
  InputFile data_;
  int64_t index_bytes_ = 0;
  TokenType type_{};
};

}  // namespace

std::unique_ptr<TokenSource> open_megatron_source(const std::string& prefix) {
  return std::make_unique<MegatronSource>(prefix);
}

}  // namespace lighthouse

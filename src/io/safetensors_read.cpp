#include <algorithm>
#include <numeric>
#include <optional>
#include <utility>

#include "io/errors.h"
#include "io/json_text.h"
#include "io/safetensors.h"
#include "io/shape.h"
#include "lighthouse/check.h"

namespace lighthouse {
using nlohmann::json;

namespace {

constexpr const char* kMetadata = "__metadata__";
constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library
constexpr size_t kMaxDimensions = 64;              // as many as torch has
constexpr size_t kMaxEntryBytes = 4 << 20;         // in memory, of the metadata or a tensor's entry
constexpr size_t kMaxTableBytes = 52 << 20;        // in memory, of all that is kept of tensors
constexpr size_t kHeapBytes = 48;                  // what the heap takes for the sizes of a tensor, and for a long name
constexpr size_t kTensorBytes = sizeof(StoredTensor) + sizeof(uint32_t) + kHeapBytes;

/// The JSON text between the length and the data.
std::string header_text(const InputFile& file, const std::string& source) {
  const auto size = static_cast<uint64_t>(file.size());
  if (size == 0) throw_damaged(source, "empty file");
  if (size < kLengthBytes) throw_damaged(source, "truncated: ", size, " bytes, the header length alone takes 8");
  uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length == 0) throw_damaged(source, "header length is 0");
  if (length > size - kLengthBytes || length > kMaxHeaderBytes) {
    throw_damaged(source, "header length ", length, " is more than the file holds or the format allows (",
                  std::min<uint64_t>(size - kLengthBytes, kMaxHeaderBytes), ")");
  }
  std::string text(length, '\0');
  file.read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  return text;
}

std::map<std::string, std::string> read_metadata(const json& value, const std::string& source) {
  if (!value.is_object()) throw_damaged(source, kMetadata, " is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) throw_damaged(source, kMetadata, " ", quoted(key), " is not a string");
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

const json& member_of_type(const json& object, const char* name, json::value_t type) {
  const json& found = member(object, name);
  if (found.type() != type) throw DamagedFile(detail::concat(name, " is of type ", found.type_name()));
  return found;
}

/// Where the data of the tensors lies in the file.
struct DataRange {
  int64_t begin, bytes;
};

/// Errors name the part alone.
StoredTensor parse_entry(const std::string& name, const json& entry, const DataRange& data) {
  if (!entry.is_object()) throw DamagedFile("its header entry is not an object");
  StoredTensor tensor{name, {}, {}};
  int64_t bytes_of_one = 0;
  try {
    const auto& dtype =
        stored_dtype(member_of_type(entry, "dtype", json::value_t::string).get_ref<const std::string&>());
    tensor.dtype = dtype.name;
    bytes_of_one = static_cast<int64_t>(dtype.bytes);
  } catch (const InvalidArgument& error) {
    throw DamagedFile(error.what());
  }
  const json& shape = member_of_type(entry, "shape", json::value_t::array);
  if (shape.size() > kMaxDimensions) {
    throw DamagedFile(
        detail::concat("its shape has ", shape.size(), " dimensions; a tensor has at most ", kMaxDimensions));
  }
  tensor.shape.reserve(shape.size());
  for (const json& size : shape) tensor.shape.push_back(whole_number(size, "size"));
  const std::optional<int64_t> bytes = bytes_of_shape(tensor.shape, bytes_of_one);
  if (!bytes) throw DamagedFile("its shape overflows 64 bits");
  const json& offsets = member_of_type(entry, "data_offsets", json::value_t::array);
  if (offsets.size() != 2) throw DamagedFile(detail::concat("data_offsets has ", offsets.size(), " numbers, not 2"));
  const int64_t begin = whole_number(offsets[0], "offset");
  const int64_t end = whole_number(offsets[1], "offset");
  if (begin > end || end > data.bytes) {
    throw DamagedFile(detail::concat("data_offsets ", offsets.dump(), " do not lie in the ", data.bytes,
                                     " data bytes of the file; it is truncated or damaged"));
  }
  if (end - begin != *bytes) {
    throw DamagedFile(detail::concat("data_offsets span ", end - begin, " bytes; dtype and shape need ", *bytes));
  }
  tensor.begin = data.begin + begin;
  tensor.bytes = *bytes;
  return tensor;
}

StoredTensor read_entry(const std::string& name, const json& entry, const DataRange& data, const std::string& file) {
  try {
    return parse_entry(name, entry, data);
  } catch (const DamagedFile& error) {
    throw_damaged(file, "tensor ", quoted(name), ": ", error.what());
  }
}

/// Checks that the tensors, sorted by place, cover the data exactly.
void check_cover(const std::vector<StoredTensor>& tensors, const DataRange& data, const std::string& file) {
  int64_t covered = data.begin;
  for (const StoredTensor& tensor : tensors) {
    if (tensor.begin != covered) {
      throw_damaged(
          file, "tensor ", quoted(tensor.name),
          tensor.begin < covered ? ": overlaps the tensor before it" : ": bytes before it belong to no tensor");
    }
    covered = tensor.begin + tensor.bytes;
  }
  const int64_t rest = data.begin + data.bytes - covered;
  if (rest != 0) throw_damaged(file, rest, " bytes at its end belong to no tensor");
}

/// How many tensors a header may be of, before it is read: not more than have a place in it.
size_t count_tensors(std::string_view text) {
  constexpr std::string_view kInEach = "data_offsets";
  size_t count = 0;
  for (size_t at = text.find(kInEach); at != std::string_view::npos; at = text.find(kInEach, at + kInEach.size()))
    ++count;
  return std::min(count, kMaxTableBytes / kTensorBytes);
}

/// Places in `tensors`, by name.
std::vector<uint32_t> sorted_by_name(const std::vector<StoredTensor>& tensors, const std::string& file) {
  std::vector<uint32_t> order(tensors.size());
  std::iota(order.begin(), order.end(), 0U);
  const auto name = [&](uint32_t place) -> const std::string& { return tensors[place].name; };
  std::sort(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return name(a) < name(b); });
  const auto twice =
      std::adjacent_find(order.begin(), order.end(), [&](uint32_t a, uint32_t b) { return name(a) == name(b); });
  if (twice != order.end())
    throw_damaged(file, "header: the name ", quoted(name(*twice)), " stands twice in one object");
  return order;
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  const std::string source = detail::concat("'", path.string(), "'");
  const std::string text = header_text(file_, source);
  const auto begin = static_cast<int64_t>(kLengthBytes + text.size());
  const DataRange data{begin, file_.size() - begin};
  bool has_metadata = false;
  size_t table_bytes = 0;
  tensors_.reserve(count_tensors(text));
  const auto take = [&](const std::string& name, const json& value) {
    if (name != kMetadata) {
      tensors_.push_back(read_entry(name, value, data, source));
      table_bytes += kTensorBytes + name.size() + sizeof(int64_t) * tensors_.back().shape.size();
      if (table_bytes > kMaxTableBytes) {
        throw_damaged(source, "header: ", tensors_.size(), " tensors and more take over ", kMaxTableBytes,
                      " bytes of memory");
      }
      return;
    }
    if (std::exchange(has_metadata, true)) throw_damaged(source, kMetadata, " stands twice");
    metadata_ = read_metadata(value, source);
  };
  read_json_members(text, source + ": header", take, kMaxEntryBytes);
  std::sort(tensors_.begin(), tensors_.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.begin, a.bytes) < std::pair(b.begin, b.bytes);
  });
  by_name_ = sorted_by_name(tensors_, source);
  check_cover(tensors_, data, source);
}

const StoredTensor& SafetensorsFile::tensor(const std::string& name) const {
  const auto found =
      std::lower_bound(by_name_.begin(), by_name_.end(), name,
                       [&](uint32_t place, const std::string& wanted) { return tensors_[place].name < wanted; });
  if (found == by_name_.end() || tensors_[*found].name != name) {
    throw_damaged(detail::concat("'", path_.string(), "'"), "no tensor ", quoted(name));
  }
  return tensors_[*found];
}

}  // namespace lighthouse

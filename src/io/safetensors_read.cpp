#include <algorithm>
#include <limits>

#include "io/errors.h"
#include "io/json_text.h"
#include "io/safetensors.h"
#include "lighthouse/check.h"

namespace lighthouse {
using nlohmann::json;

namespace {

constexpr uint64_t kLengthBytes = 8;
constexpr uint64_t kMaxHeaderBytes = 100'000'000;  // the limit of the format's own library

template <typename... Parts>
[[noreturn]] void fail(const std::string& source, const Parts&... what) {
  throw DamagedFile(detail::concat(source, ": ", what...));
}

/// The JSON text between the length and the data.
std::string header_text(const InputFile& file, const std::string& source) {
  const auto size = static_cast<uint64_t>(file.size());
  if (size == 0) fail(source, "empty file");
  if (size < kLengthBytes) fail(source, "truncated: ", size, " bytes, the header length alone takes 8");
  uint64_t length = 0;
  file.read(0, std::as_writable_bytes(std::span(&length, 1)));
  if (length == 0) fail(source, "header length is 0");
  if (length > size - kLengthBytes || length > kMaxHeaderBytes) {
    fail(source, "header length ", length, " is more than the file holds or the format allows (",
         std::min<uint64_t>(size - kLengthBytes, kMaxHeaderBytes), ")");
  }
  std::string text(length, '\0');
  file.read(kLengthBytes, std::as_writable_bytes(std::span(text)));
  return text;
}

int64_t non_negative(const json& value, const std::string& source, const char* what) {
  if (!value.is_number_unsigned() || value.get<uint64_t>() > uint64_t{std::numeric_limits<int64_t>::max()}) {
    fail(source, what, " ", value.dump(), " is not an integer from 0 to 2^63 - 1");
  }
  return value.get<int64_t>();
}

std::map<std::string, std::string> read_metadata(const json& value, const std::string& source) {
  if (!value.is_object()) fail(source, "__metadata__ is not an object");
  std::map<std::string, std::string> metadata;
  for (const auto& [key, text] : value.items()) {
    if (!text.is_string()) fail(source, "__metadata__ ", quoted(key), " is not a string");
    metadata[key] = text.get<std::string>();
  }
  return metadata;
}

const json& member(const json& object, const char* key, json::value_t type, const std::string& source) {
  const auto found = object.find(key);
  if (found == object.end()) fail(source, "no ", key);
  if (found->type() != type) fail(source, key, " is of type ", found->type_name());
  return *found;
}

/// Where the data of the tensors lies in the file.
struct DataRange {
  int64_t begin, bytes;
};

StoredTensor read_entry(const std::string& name, const json& entry, const DataRange& data, const std::string& file) {
  const std::string source = file + ": tensor " + quoted(name);
  if (!entry.is_object()) fail(source, "its header entry is not an object");
  StoredTensor tensor{name, member(entry, "dtype", json::value_t::string, source).get<std::string>(), {}};
  int64_t bytes = 0;
  try {
    bytes = static_cast<int64_t>(element_bytes(tensor.dtype));
  } catch (const InvalidArgument& error) {
    fail(source, error.what());
  }
  for (const json& size : member(entry, "shape", json::value_t::array, source)) {
    tensor.shape.push_back(non_negative(size, source, "size"));
    if (__builtin_mul_overflow(bytes, tensor.shape.back(), &bytes)) fail(source, "its shape overflows 64 bits");
  }
  const json& offsets = member(entry, "data_offsets", json::value_t::array, source);
  if (offsets.size() != 2) fail(source, "data_offsets has ", offsets.size(), " numbers, not 2");
  const int64_t begin = non_negative(offsets[0], source, "offset");
  const int64_t end = non_negative(offsets[1], source, "offset");
  if (begin > end || end > data.bytes) {
    fail(source, "data_offsets ", offsets.dump(), " do not lie in the ", data.bytes,
         " data bytes of the file; it is truncated or damaged");
  }
  if (end - begin != bytes) {
    fail(source, "data_offsets span ", end - begin, " bytes; dtype and shape need ", bytes);
  }
  tensor.begin = data.begin + begin;
  tensor.bytes = bytes;
  return tensor;
}

/// Sorts by place and checks that the tensors cover the data exactly.
void check_cover(std::vector<StoredTensor>& tensors, const DataRange& data, const std::string& file) {
  std::sort(tensors.begin(), tensors.end(), [](const StoredTensor& a, const StoredTensor& b) {
    return std::pair(a.begin, a.bytes) < std::pair(b.begin, b.bytes);
  });
  int64_t covered = data.begin;
  for (const StoredTensor& tensor : tensors) {
    const std::string source = file + ": tensor " + quoted(tensor.name);
    if (tensor.begin < covered) fail(source, "overlaps the tensor before it");
    if (tensor.begin > covered) fail(source, "bytes before it belong to no tensor");
    covered = tensor.begin + tensor.bytes;
  }
  const int64_t rest = data.begin + data.bytes - covered;
  if (rest != 0) fail(file, rest, " bytes at its end belong to no tensor");
}

}  // namespace

SafetensorsFile::SafetensorsFile(const std::filesystem::path& path) : path_(path), file_(path) {
  const std::string source = detail::concat("'", path.string(), "'");
  const std::string text = header_text(file_, source);
  const json header = parse_json(text, source + ": header");
  if (!header.is_object()) fail(source, "the header is not a JSON object");
  const auto begin = static_cast<int64_t>(kLengthBytes + text.size());
  const DataRange data{begin, file_.size() - begin};
  for (const auto& [name, entry] : header.items()) {
    if (name == "__metadata__") {
      metadata_ = read_metadata(entry, source);
    } else {
      tensors_.push_back(read_entry(name, entry, data, source));
    }
  }
  check_cover(tensors_, data, source);
}

const StoredTensor& SafetensorsFile::tensor(const std::string& name) const {
  const auto found =
      std::find_if(tensors_.begin(), tensors_.end(), [&](const StoredTensor& tensor) { return tensor.name == name; });
  if (found == tensors_.end()) fail(detail::concat("'", path_.string(), "'"), "no tensor ", quoted(name));
  return *found;
}

}  // namespace lighthouse

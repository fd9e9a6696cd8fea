#include "io/manifest.h"

#include <algorithm>
#include <array>
#include <system_error>

#include "io/errors.h"
#include "io/json_text.h"
#include "io/shape.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

using nlohmann::json;
using nlohmann::ordered_json;

constexpr const char* kFormat = "lighthouse-checkpoint";
constexpr const char* kChecksum = "xxh3_128";
/// What stands in the place of the manifest's own checksum while that is computed.
const std::string kNoChecksum(32, '0');

template <typename... Parts>
void require(bool holds, const Parts&... what) {
  if (!holds) throw DamagedFile(detail::concat(what...));
}

template <typename... Parts>
void require_of_file(bool holds, const fs::path& path, const Parts&... what) {
  require(holds, "'", path.string(), "': ", what...);
}

ordered_json to_json(const TensorEntry& tensor) {
  ordered_json object = {{"name", tensor.name},
                         {"dtype", tensor.dtype},
                         {"shape", tensor.shape},
                         {"bytes", tensor.bytes},
                         {kChecksum, tensor.checksum}};
  if (const auto& range = tensor.range) {
    object["range"] = {{"of", range->name}, {"shape", range->shape}, {"begin", range->begin}};
  }
  return object;
}

ordered_json to_json(const FileEntry& file) {
  ordered_json object = {{"name", file.name}, {"bytes", file.summary.bytes}, {kChecksum, file.summary.checksum}};
  auto tensors = ordered_json::array();
  for (const TensorEntry& tensor : file.tensors) tensors.push_back(to_json(tensor));
  object["tensors"] = std::move(tensors);
  return object;
}

std::string text_member(const json& object, const char* name) {
  const json& found = member(object, name);
  require(found.is_string(), name, " ", excerpt(found), " is not a string");
  return found.get<std::string>();
}

const json& array_member(const json& object, const char* name) {
  const json& found = member(object, name);
  require(found.is_array(), name, " ", excerpt(found), " is not an array");
  return found;
}

std::vector<int64_t> shape_member(const json& object) {
  const json& sizes = array_member(object, "shape");
  std::vector<int64_t> shape;
  for (const json& size : sizes) shape.push_back(whole_number(size, "size"));
  require(bytes_of_shape(shape).has_value(), "shape ", excerpt(sizes), " has more than 2^63 elements");
  return shape;
}

TensorEntry tensor_entry(const json& object) {
  TensorEntry tensor{text_member(object, "name"),   text_member(object, "dtype"),   shape_member(object),
                     whole_member(object, "bytes"), text_member(object, kChecksum), {}};
  if (object.contains("range")) {
    const json& range = object["range"];
    tensor.range = RangeEntry{text_member(range, "of"), shape_member(range), whole_member(range, "begin")};
    require(tensor.shape.size() == 1, "the range ", quoted(tensor.name), " has not one dimension");
  }
  return tensor;
}

FileEntry file_entry(const json& object) {
  FileEntry file{text_member(object, "name"), {whole_member(object, "bytes"), text_member(object, kChecksum)}, {}};
  require(fs::path(file.name) == fs::path(file.name).filename(), "file ", quoted(file.name),
          " is not the name of a file in this folder");
  for (const json& tensor : array_member(object, "tensors")) file.tensors.push_back(tensor_entry(tensor));
  return file;
}

bool has_ranges(const Manifest& manifest) {
  return std::any_of(manifest.files.begin(), manifest.files.end(), [](const FileEntry& file) {
    return std::any_of(file.tensors.begin(), file.tensors.end(),
                       [](const TensorEntry& tensor) { return tensor.range.has_value(); });
  });
}

/// `text` with `with` in place of the last `what`.
std::string replaced_at_end(std::string text, const std::string& what, const std::string& with) {
  const size_t place = text.rfind(what);
  require(place != std::string::npos && !what.empty(), "its own checksum is not found");
  return text.replace(place, what.size(), with);
}

std::string checksum_of(const std::string& text) { return checksum(std::as_bytes(std::span(text))); }

/// What is unknown may be a name that is damaged, and the checksum's own would hide all.
void check_whole(const json& object, const std::string& text, int64_t version) {
  constexpr std::array kMembers = {"format", "version", "step", "files", kChecksum};
  for (const auto& [name, value] : object.items()) {
    require(std::find(kMembers.begin(), kMembers.end(), name) != kMembers.end(), "unknown member ", quoted(name));
  }
  if (version == kManifestVersion && !object.contains(kChecksum)) return;  // written by an earlier version
  const std::string expected = text_member(object, kChecksum);
  require(checksum_of(replaced_at_end(text, expected, kNoChecksum)) == expected, "its checksum differs from its own");
}

Manifest manifest_of(const json& object, const std::string& text) {
  const std::string format = text_member(object, "format");
  require(format == kFormat, "format ", quoted(format), " is not ", kFormat);
  const int64_t version = whole_member(object, "version");
  require(version == kManifestVersion || version == kRangesVersion, "version ", version,
          " is unknown; this program reads versions ", kManifestVersion, " and ", kRangesVersion);
  check_whole(object, text, version);
  Manifest manifest{whole_member(object, "step"), {}};
  for (const json& file : array_member(object, "files")) manifest.files.push_back(file_entry(file));
  return manifest;
}

}  // namespace

TensorEntry describe_tensor(const RawTensor& tensor) {
  return {tensor.name, tensor.dtype, tensor.shape, static_cast<int64_t>(tensor.data.size()), checksum(tensor.data), {}};
}

std::string manifest_text(const Manifest& manifest) {
  ordered_json object = {{"format", kFormat},
                         {"version", has_ranges(manifest) ? kRangesVersion : kManifestVersion},
                         {"step", manifest.step}};
  auto files = ordered_json::array();
  for (const FileEntry& file : manifest.files) files.push_back(to_json(file));
  object["files"] = std::move(files);
  object[kChecksum] = kNoChecksum;
  const std::string text = object.dump(1) + "\n";
  return replaced_at_end(text, kNoChecksum, checksum_of(text));
}

Manifest parse_manifest(const std::string& text, const std::string& source) {
  const json object = parse_json(text, source);
  return reading(source, [&] { return manifest_of(object, text); });
}

void write_manifest(const fs::path& folder, const Manifest& manifest) {
  write_file_durably(folder / kManifestFile, manifest_text(manifest));
}

Manifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestFile;
  const std::string source = detail::concat("'", path.string(), "'");
  std::string text;
  try {
    text = read_text_file(path);
  } catch (const std::system_error& error) {
    require_of_file(!is_missing(error.code()), path, "missing: the checkpoint is partial");
    throw;
  }
  Manifest manifest = parse_manifest(text, source);
  reading(source, [&] { check_ranges(manifest); });
  return manifest;
}

void check_file_sizes(const fs::path& folder, const Manifest& manifest) {
  for (const FileEntry& file : manifest.files) {
    const fs::path path = folder / file.name;
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    const bool is_no_file = error == std::errc::is_a_directory || error == std::errc::not_supported;
    if (error && !is_no_file && !is_missing(error)) throw_system_error(error.value(), "cannot read", path);
    require_of_file(!is_no_file, path, "not a regular file");
    require_of_file(!error, path, error.message());
    require_of_file(bytes == static_cast<uintmax_t>(file.summary.bytes), path, bytes, " bytes; the manifest says ",
                    file.summary.bytes);
  }
}

void check_file(const fs::path& path, const FileSummary& found, const FileEntry& expected) {
  require_of_file(found.bytes == expected.summary.bytes, path, found.bytes, " bytes; the manifest says ",
                  expected.summary.bytes);
  require_of_file(found.checksum == expected.summary.checksum, path,
                  "checksum of the file differs from the manifest's");
}

void check_tensor(const fs::path& path, const RawTensor& found, const TensorEntry& expected) {
  const std::string name = quoted(found.name);
  require_of_file(found.dtype == expected.dtype, path, "tensor ", name, ": dtype ", found.dtype, "; the manifest says ",
                  quoted(expected.dtype));
  require_of_file(found.shape == expected.shape, path, "tensor ", name, ": shape ", excerpt(found.shape),
                  "; the manifest says ", excerpt(expected.shape));
  require_of_file(static_cast<int64_t>(found.data.size()) == expected.bytes, path, "tensor ", name, ": ",
                  found.data.size(), " bytes; the manifest says ", expected.bytes);
  require_of_file(checksum(found.data) == expected.checksum, path, "tensor ", name,
                  ": checksum of its data differs from the manifest's");
}

}  // namespace lighthouse

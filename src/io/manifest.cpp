#include "io/manifest.h"

#include <system_error>

#include "io/errors.h"
#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace fs = std::filesystem;

namespace {

constexpr const char* kFormat = "lighthouse-checkpoint";

nlohmann::ordered_json to_json(const TensorEntry& tensor) {
  return {{"name", tensor.name},
          {"dtype", tensor.dtype},
          {"shape", tensor.shape},
          {"bytes", tensor.bytes},
          {"xxh3_128", tensor.checksum}};
}

nlohmann::ordered_json to_json(const FileEntry& file) {
  nlohmann::ordered_json object = {
      {"name", file.name}, {"bytes", file.summary.bytes}, {"xxh3_128", file.summary.checksum}};
  auto tensors = nlohmann::ordered_json::array();
  for (const TensorEntry& tensor : file.tensors) tensors.push_back(to_json(tensor));
  object["tensors"] = std::move(tensors);
  return object;
}

TensorEntry tensor_entry(const nlohmann::json& object) {
  return {object.at("name"), object.at("dtype"), object.at("shape"), object.at("bytes"), object.at("xxh3_128")};
}

FileEntry file_entry(const nlohmann::json& object) {
  FileEntry file{object.at("name"), {object.at("bytes"), object.at("xxh3_128")}, {}};
  for (const auto& tensor : object.at("tensors")) file.tensors.push_back(tensor_entry(tensor));
  return file;
}

template <typename... Parts>
void require(bool holds, const fs::path& path, const Parts&... what) {
  if (!holds) throw DamagedFile(detail::concat("'", path.string(), "': ", what...));
}

}  // namespace

TensorEntry describe_tensor(const RawTensor& tensor) {
  return {tensor.name, tensor.dtype, tensor.shape, static_cast<int64_t>(tensor.data.size()), checksum(tensor.data)};
}

void write_manifest(const fs::path& folder, const Manifest& manifest) {
  nlohmann::ordered_json object = {{"format", kFormat}, {"version", kManifestVersion}, {"step", manifest.step}};
  auto files = nlohmann::ordered_json::array();
  for (const FileEntry& file : manifest.files) files.push_back(to_json(file));
  object["files"] = std::move(files);
  write_file_durably(folder / kManifestFile, object.dump(1) + "\n");
}

Manifest read_manifest(const fs::path& folder) {
  const fs::path path = folder / kManifestFile;
  std::error_code error;
  require(fs::exists(path, error), path, "missing: the checkpoint is partial");
  const nlohmann::json object = parse_json(read_text_file(path), detail::concat("'", path.string(), "'"));
  try {
    require(object.at("format") == kFormat, path, "format ", object.at("format").dump(), " is not ", kFormat);
    require(object.at("version") == kManifestVersion, path, "version ", object.at("version").dump(),
            " is unknown; this program reads version ", kManifestVersion);
    Manifest manifest{object.at("step"), {}};
    for (const auto& file : object.at("files")) manifest.files.push_back(file_entry(file));
    return manifest;
  } catch (const nlohmann::json::exception& malformed) {
    throw DamagedFile(detail::concat("'", path.string(), "': ", malformed.what()));
  }
}

void check_file_sizes(const fs::path& folder, const Manifest& manifest) {
  for (const FileEntry& file : manifest.files) {
    const fs::path path = folder / file.name;
    std::error_code error;
    const auto bytes = fs::file_size(path, error);
    require(!error, path, error.message());
    require(bytes == static_cast<uintmax_t>(file.summary.bytes), path, bytes, " bytes; the manifest says ",
            file.summary.bytes);
  }
}

void check_file(const fs::path& path, const FileSummary& found, const FileEntry& expected) {
  require(found.bytes == expected.summary.bytes, path, found.bytes, " bytes; the manifest says ",
          expected.summary.bytes);
  require(found.checksum == expected.summary.checksum, path, "checksum of the file differs from the manifest's");
}

void check_tensor(const fs::path& path, const RawTensor& found, const TensorEntry& expected) {
  const std::string name = quoted(found.name);
  require(found.dtype == expected.dtype, path, "tensor ", name, ": dtype ", found.dtype, "; the manifest says ",
          quoted(expected.dtype));
  require(found.shape == expected.shape, path, "tensor ", name, ": shape ", nlohmann::json(found.shape).dump(),
          "; the manifest says ", nlohmann::json(expected.shape).dump());
  require(static_cast<int64_t>(found.data.size()) == expected.bytes, path, "tensor ", name, ": ", found.data.size(),
          " bytes; the manifest says ", expected.bytes);
  require(checksum(found.data) == expected.checksum, path, "tensor ", name,
          ": checksum of its data differs from the manifest's");
}

}  // namespace lighthouse

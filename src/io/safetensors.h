// The safetensors format: 8-byte little-endian header length, JSON header, raw little-endian data. Knows no torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "io/durable_file.h"
#include "io/input_file.h"

namespace lighthouse {

/// One tensor to write. `data` is not owned.
struct RawTensor {
  std::string name;
  std::string dtype;  ///< a StoredDtype's name: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL
  std::vector<int64_t> shape;
  std::span<const std::byte> data;  ///< row-major, little-endian
};

/// What an element is, as the format names it.
struct StoredDtype {
  std::string_view name;
  size_t bytes;
};

/// Throws InvalidArgument for an unknown name.
const StoredDtype& stored_dtype(std::string_view name);

/// Writes and fsyncs one file, wide dtypes first so that all data is aligned, otherwise in the given order; an existing
/// file is replaced when the new one is complete. Throws std::system_error (path and errno text) and leaves no partial
/// file behind, and InvalidArgument for tensors that the format cannot hold (two of one name, data of another size than
/// dtype and shape say). Returns what a manifest records of the file.
FileSummary write_safetensors(const std::filesystem::path& path, const std::vector<RawTensor>& tensors,
                              const std::map<std::string, std::string>& metadata = {});

/// One tensor found in a file.
struct StoredTensor {
  std::string name;
  std::string_view dtype;  ///< a StoredDtype's name
  std::vector<int64_t> shape;
  int64_t begin = 0;  ///< its first byte in the file
  int64_t bytes = 0;
};

/// A file of tensors, open for reading. The constructor checks everything that the header claims against the file's
/// size (length, JSON, dtypes, shapes, offsets, overlaps, holes) and throws DamagedFile naming file and tensor;
/// std::system_error when the file cannot be opened. Beside the header's text it takes at most 64 MiB of memory; more
/// tensors than that is enough for, some 350,000, are refused.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::vector<StoredTensor>& tensors() const { return tensors_; }  ///< in file order
  const StoredTensor& tensor(const std::string& name) const;             ///< throws DamagedFile when absent
  /// Fills `data`, tensor.bytes long, row-major and little-endian. Throws as InputFile::read does.
  void read(const StoredTensor& tensor, std::span<std::byte> data) const { file_.read(tensor.begin, data); }
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  const InputFile& file() const { return file_; }

 private:
  std::filesystem::path path_;
  InputFile file_;
  std::vector<StoredTensor> tensors_;
  std::vector<uint32_t> by_name_;  ///< places in tensors_
  std::map<std::string, std::string> metadata_;
};

}  // namespace lighthouse

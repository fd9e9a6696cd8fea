// The safetensors format: 8-byte little-endian header length, JSON header, raw little-endian data. Knows no torch.
#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <vector>

namespace lighthouse {

/// One tensor to write, or one found in a file. `data` is not owned.
struct RawTensor {
  std::string name;
  std::string dtype;  ///< safetensors' name: F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL
  std::vector<int64_t> shape;
  std::span<const std::byte> data;
};

/// Bytes of one element of a safetensors dtype; throws InvalidArgument for an unknown one.
size_t element_bytes(const std::string& dtype);

/// Writes and fsyncs one file. Throws std::system_error (path and errno text) and leaves no partial file behind.
void write_safetensors(const std::filesystem::path& path, const std::vector<RawTensor>& tensors,
                       const std::map<std::string, std::string>& metadata = {});

/// A memory-mapped file. The constructor checks everything that the header claims against the file's size (length,
/// JSON, dtypes, shapes, offsets, overlaps, holes) and throws DamagedFile naming file and tensor.
class SafetensorsFile {
 public:
  explicit SafetensorsFile(const std::filesystem::path& path);
  ~SafetensorsFile();
  SafetensorsFile(const SafetensorsFile&) = delete;
  SafetensorsFile& operator=(const SafetensorsFile&) = delete;

  const std::vector<RawTensor>& tensors() const { return tensors_; }  ///< in file order; views into the mapping
  const RawTensor& tensor(const std::string& name) const;             ///< throws DamagedFile when absent
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

 private:
  std::filesystem::path path_;
  std::span<const std::byte> mapping_;
  std::vector<RawTensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace lighthouse

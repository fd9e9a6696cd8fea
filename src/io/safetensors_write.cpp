#include <algorithm>
#include <array>
#include <bit>
#include <nlohmann/json.hpp>
#include <set>

#include "io/json_text.h"
#include "io/safetensors.h"
#include "lighthouse/check.h"

namespace lighthouse {
static_assert(std::endian::native == std::endian::little, "tensor data is written as it lies in memory");

namespace {

int64_t data_bytes(const RawTensor& tensor) {
  int64_t bytes = static_cast<int64_t>(stored_dtype(tensor.dtype).bytes);
  for (const int64_t size : tensor.shape) {
    LIGHTHOUSE_CHECK(size >= 0 && !__builtin_mul_overflow(bytes, size, &bytes), "write_safetensors: tensor ",
                     quoted(tensor.name), ": a size of ", size, " in its shape is negative or too large");
  }
  return bytes;
}

void check_tensors(const std::vector<RawTensor>& tensors) {
  std::set<std::string> names;
  for (const RawTensor& tensor : tensors) {
    LIGHTHOUSE_CHECK(tensor.name != "__metadata__", "write_safetensors: the name __metadata__ is reserved");
    LIGHTHOUSE_CHECK(names.insert(tensor.name).second, "write_safetensors: two tensors are named ",
                     quoted(tensor.name));
    LIGHTHOUSE_CHECK(static_cast<int64_t>(tensor.data.size()) == data_bytes(tensor), "write_safetensors: tensor ",
                     quoted(tensor.name), " has ", tensor.data.size(), " bytes; dtype and shape need ",
                     data_bytes(tensor));
  }
}

/// 8 bytes of length and the JSON, padded with spaces to a multiple of 8.
std::string make_header(const std::vector<RawTensor>& tensors, const std::map<std::string, std::string>& metadata) {
  auto header = nlohmann::ordered_json::object();
  if (!metadata.empty()) header["__metadata__"] = metadata;
  int64_t offset = 0;
  for (const RawTensor& tensor : tensors) {
    const int64_t end = offset + static_cast<int64_t>(tensor.data.size());
    header[tensor.name] = {{"dtype", tensor.dtype}, {"shape", tensor.shape}, {"data_offsets", {offset, end}}};
    offset = end;
  }
  std::string text;
  try {
    text = header.dump();
  } catch (const nlohmann::json::exception& error) {
    LIGHTHOUSE_CHECK(false, "write_safetensors: a tensor name or metadata is not UTF-8: ", error.what());
  }
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const uint64_t length = text.size();
  return std::string(reinterpret_cast<const char*>(&length), sizeof length) + text;
}

}  // namespace

const StoredDtype& stored_dtype(std::string_view name) {
  static constexpr std::array<StoredDtype, 10> kDtypes = {{{"F64", 8},
                                                           {"F32", 4},
                                                           {"F16", 2},
                                                           {"BF16", 2},
                                                           {"I64", 8},
                                                           {"I32", 4},
                                                           {"I16", 2},
                                                           {"I8", 1},
                                                           {"U8", 1},
                                                           {"BOOL", 1}}};
  const auto* const found =
      std::find_if(kDtypes.begin(), kDtypes.end(), [&](const auto& each) { return each.name == name; });
  LIGHTHOUSE_CHECK(found != kDtypes.end(), "safetensors: unknown dtype ", quoted(std::string(name)),
                   "; known are F64 F32 F16 BF16 I64 I32 I16 I8 U8 BOOL");
  return *found;
}

FileSummary write_safetensors(const std::filesystem::path& path, const std::vector<RawTensor>& tensors,
                              const std::map<std::string, std::string>& metadata) {
  check_tensors(tensors);
  std::vector<RawTensor> in_file_order = tensors;
  std::stable_sort(in_file_order.begin(), in_file_order.end(), [](const RawTensor& a, const RawTensor& b) {
    return stored_dtype(a.dtype).bytes > stored_dtype(b.dtype).bytes;
  });
  const std::string header = make_header(in_file_order, metadata);
  DurableFile file(path);
  file.write(std::as_bytes(std::span(header)));
  for (const RawTensor& tensor : in_file_order) file.write(tensor.data);
  return file.commit();
}

}  // namespace lighthouse

// Corpora that tests write, and configurations for them.
#pragma once

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "cpp/io/temporary_folder.h"

namespace lighthouse {

/// Bytes that tell where they stand: no two stretches of 3 are equal for lengths below 65,536.
inline std::string numbered_text(size_t length) {
  std::string text(length, '\0');
  for (size_t place = 0; place < length; ++place) {
    const size_t digit = place % 3;
    text[place] = static_cast<char>(digit == 0 ? 200 : (place / 3) >> (digit == 1 ? 8 : 0));
  }
  return text;
}

inline DataConfig data_config(const std::filesystem::path& path, Packing packing = Packing::kChunks,
                              double validation_fraction = 0) {
  DataConfig config;
  config.path = path.string();
  config.packing = packing;
  config.validation_fraction = validation_fraction;
  return config;
}

template <typename T>
std::string packed(const std::vector<T>& values) {
  std::string bytes(values.size() * sizeof(T), '\0');
  if (!values.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return bytes;
}

/// The parts of a Megatron-LM index, each of which a test may spoil before it is written.
struct MegatronIndex {
  std::string magic = std::string("MMIDIDX\0\0", 9);
  uint64_t version = 1;
  uint8_t dtype = 4;
  std::vector<int32_t> sizes;
  std::vector<int64_t> pointers;
  std::vector<int64_t> documents;

  /// A document for each sequence.
  MegatronIndex(const std::vector<int32_t>& lengths, uint8_t code, size_t token_bytes)
      : dtype(code), sizes(lengths), documents{0} {
    int64_t begin = 0;
    for (const int32_t length : lengths) {
      pointers.push_back(begin);
      begin += length * static_cast<int64_t>(token_bytes);
      documents.push_back(static_cast<int64_t>(documents.size()));
    }
  }
  std::string bytes() const {
    return magic + packed<uint64_t>({version}) + packed<uint8_t>({dtype}) + packed<uint64_t>({sizes.size()}) +
           packed<uint64_t>({documents.size()}) + packed(sizes) + packed(pointers) + packed(documents);
  }
};

}  // namespace lighthouse

#include "support/golden.h"

#include <cmath>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>

namespace lighthouse::test_support {
namespace {

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) throw std::runtime_error("cannot read golden data " + path);
  return {std::istreambuf_iterator<char>(file), {}};
}

uint64_t splitmix64(uint64_t x) {
  uint64_t z = x + 0x9E3779B97F4A7C15U;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9U;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBU;
  return z ^ (z >> 31);
}

}  // namespace

Golden::Golden(const std::string& name_or_path) {
  const bool is_path = name_or_path.ends_with(".safetensors");
  const std::string file =
      read_file(is_path ? name_or_path : LIGHTHOUSE_GOLDEN_DIR "/" + name_or_path + ".safetensors");
  uint64_t header_len = 0;
  if (file.size() < sizeof(header_len)) throw std::runtime_error("golden data " + name_or_path + " is truncated");
  std::memcpy(&header_len, file.data(), sizeof(header_len));
  header_ = nlohmann::json::parse(file.substr(sizeof(header_len), header_len));
  data_ = file.substr(sizeof(header_len) + header_len);
}

int64_t Golden::number(const std::string& key) const {
  return std::stoll(header_.at("__metadata__").at(key).get<std::string>());
}

std::vector<int64_t> Golden::shape(const std::string& tensor) const {
  return header_.at(tensor).at("shape").get<std::vector<int64_t>>();
}

template <typename T>
std::vector<T> Golden::read(const std::string& tensor, const char* dtype) const {
  const nlohmann::json& entry = header_.at(tensor);
  if (entry.at("dtype") != dtype) throw std::runtime_error("golden tensor " + tensor + " is not " + dtype);
  const auto begin = entry.at("data_offsets").at(0).get<size_t>();
  const auto end = entry.at("data_offsets").at(1).get<size_t>();
  std::vector<T> values((end - begin) / sizeof(T));
  std::memcpy(values.data(), data_.substr(begin, end - begin).data(), end - begin);
  return values;
}

std::vector<float> Golden::floats(const std::string& tensor) const { return read<float>(tensor, "F32"); }
std::vector<int32_t> Golden::ints(const std::string& tensor) const { return read<int32_t>(tensor, "I32"); }

SelectionConfig Golden::config() const {
  SelectionConfig config;
  config.num_levels = number("L");
  config.pooling_factor = number("p");
  config.topk = number("k");
  config.tile_topk = number("m");
  config.cover_prefix = header_.at("__metadata__").at("cover_prefix") == "true";
  return config;
}

std::vector<float> golden_input(int64_t seed, GoldenInput input, int64_t count) {
  const uint64_t stream = (static_cast<uint64_t>(10 * seed) + static_cast<uint64_t>(input)) << 32;
  std::vector<float> values(static_cast<size_t>(count));
  for (size_t i = 0; i < values.size(); ++i) {
    double sum = 0;
    for (uint64_t j = 0; j < 4; ++j) sum += static_cast<double>(splitmix64(4 * i + j + stream) >> 40) / (1 << 24);
    values[i] = static_cast<float>((sum - 2) * std::sqrt(3.0));
  }
  return values;
}

}  // namespace lighthouse::test_support

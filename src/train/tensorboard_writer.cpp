#include "train/tensorboard_writer.h"

#include <unistd.h>

#include <array>
#include <bit>
#include <chrono>

namespace lighthouse {
namespace {

constexpr std::array<uint32_t, 256> make_crc_table() {
  constexpr uint32_t kPolynomial = 0x82F63B78;  // Castagnoli, bits reversed
  std::array<uint32_t, 256> table{};
  for (uint32_t byte = 0; byte < table.size(); ++byte) {
    uint32_t crc = byte;
    for (int bit = 0; bit < 8; ++bit) crc = (crc >> 1) ^ ((crc & 1) != 0 ? kPolynomial : 0);
    table.at(byte) = crc;
  }
  return table;
}

template <typename T>
std::string little_endian(T value) {
  std::string bytes;
  for (size_t i = 0; i < sizeof(T); ++i) bytes += static_cast<char>(static_cast<uint64_t>(value) >> (8 * i));
  return bytes;
}

// Protobuf's wire format. Field numbers are those of tensorboard/compat/proto/event.proto and summary.proto.
enum WireType : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

std::string varint(uint64_t value) {
  std::string bytes;
  for (; value >= 0x80; value >>= 7) bytes += static_cast<char>((value & 0x7F) | 0x80);
  return bytes + static_cast<char>(value);
}
std::string tag(uint32_t field, WireType type) { return varint(uint64_t{field} << 3 | type); }
std::string integer_field(uint32_t field, uint64_t value) { return tag(field, kVarint) + varint(value); }
std::string bytes_field(uint32_t field, std::string_view value) {
  return tag(field, kBytes) + varint(value.size()) + std::string(value);
}
std::string double_field(uint32_t field, double value) {
  return tag(field, kFixed64) + little_endian(std::bit_cast<uint64_t>(value));
}
std::string float_field(uint32_t field, float value) {
  return tag(field, kFixed32) + little_endian(std::bit_cast<uint32_t>(value));
}

double wall_time() {
  return std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// An Event with one member of its `what`.
std::string event(int64_t step, uint32_t field, std::string_view content) {
  return double_field(1, wall_time()) + integer_field(2, static_cast<uint64_t>(step)) + bytes_field(field, content);
}
constexpr uint32_t kFileVersion = 3;
constexpr uint32_t kSummary = 5;
constexpr uint32_t kSessionLog = 7;

std::filesystem::path file_name() {
  std::array<char, 256> host{};
  if (::gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  return "events.out.tfevents." + std::to_string(static_cast<int64_t>(wall_time())) + "." + host.data() + "." +
         std::to_string(::getpid());
}

}  // namespace

uint32_t masked_crc32c(std::string_view bytes) {
  static constexpr std::array<uint32_t, 256> kTable = make_crc_table();
  uint32_t crc = ~uint32_t{0};
  for (const char byte : bytes) crc = (crc >> 8) ^ kTable.at((crc ^ static_cast<uint8_t>(byte)) & 0xFF);
  return std::rotr(~crc, 15) + 0xA282EAD8;
}

std::string tfrecord(std::string_view data) {
  const std::string length = little_endian(uint64_t{data.size()});
  return length + little_endian(masked_crc32c(length)) + std::string(data) + little_endian(masked_crc32c(data));
}

TensorBoardWriter::TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step)
    : file_(folder / file_name()) {
  file_.append(tfrecord(event(0, kFileVersion, "brain.Event:2")));
  constexpr uint64_t kStart = 1;  // SessionLog.SessionStatus
  file_.append(tfrecord(event(first_step, kSessionLog, integer_field(1, kStart))));
}

void TensorBoardWriter::write(int64_t step, const std::vector<std::pair<std::string, double>>& values) {
  std::string summary;
  for (const auto& [name, value] : values) {
    summary += bytes_field(1, bytes_field(1, name) + float_field(2, static_cast<float>(value)));
  }
  file_.append(tfrecord(event(step, kSummary, summary)));
}

}  // namespace lighthouse

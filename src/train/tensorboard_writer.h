// TensorBoard event files: TFRecord framing around hand-encoded `Event` protobufs that hold scalars.
#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "train/append_file.h"

namespace lighthouse {

/// Every start of a run writes a file of its own, FOLDER/events.out.tfevents.SECONDS.HOST.PID. A resumed one begins
/// with SessionLog START at its first step: TensorBoard then forgets what earlier files say of this and later steps.
class TensorBoardWriter {
 public:
  /// `first_step`: the first step that will be written. Throws std::system_error.
  TensorBoardWriter(const std::filesystem::path& folder, int64_t first_step);

  /// One event with all values. Throws std::system_error.
  void write(int64_t step, const std::vector<std::pair<std::string, double>>& values);

 private:
  AppendFile file_;
};

/// CRC-32C (Castagnoli), rotated and shifted as TFRecord stores it.
uint32_t masked_crc32c(std::string_view bytes);
/// u64 length, u32 masked CRC of the length, data, u32 masked CRC of the data; little-endian.
std::string tfrecord(std::string_view data);

}  // namespace lighthouse

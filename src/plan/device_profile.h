// What devices were measured to do, as far as the time of a training step depends on it.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "config/choices.h"

namespace lighthouse {

/// Causal attention of 8 heads of 128 over `length` rows, FLOP/s that it needs over the time it takes.
struct AttentionRate {
  double length;
  double forward;
  double both;  ///< forward and backward together
};

inline constexpr int kMultiprocessors = 132;  ///< of H100 and H200

/// Rates are of bf16.
struct DeviceProfile {
  std::string name;                      ///< "h200"
  bool measured;                         ///< false: assumed, or scaled by a data sheet
  int64_t memory_bytes;                  ///< what the driver reports; 0: not known
  double peak_flops;                     ///< of the data sheet
  double fp32_peak_flops;                ///< the same without tensor cores
  double product_flops;                  ///< matrix products of a layer, forward and backward
  double copy_bytes_per_s;               ///< device to device, read plus write
  double host_bytes_per_s;               ///< to and from pinned host memory, one way
  std::vector<AttentionRate> attention;  ///< by length, ascending
};

/// h200, measured; h100, with rounded rates of copies and products and the H200's attention.
const std::vector<DeviceProfile>& device_profiles();

/// The profile of a device named as the driver does ("NVIDIA H200") or in short; nullptr where none was measured.
const DeviceProfile* find_profile(std::string_view device_name);

/// A rough profile: the H200's shares of what its data sheet promises, for a device that promises `peak_flops` and
/// `memory_bytes_per_s`.
DeviceProfile scaled_profile(const std::string& name, int64_t memory_bytes, double peak_flops,
                             double memory_bytes_per_s);

/// The profile for training.precision: itself in bf16; in fp32, which was not measured, its rates of arithmetic are
/// scaled by the data sheet.
DeviceProfile in_precision(DeviceProfile profile, Precision precision);

/// The rates at `length`: between two measured lengths linear in their logarithm, beyond them as at the last.
AttentionRate attention_rate(const DeviceProfile& profile, double length);

}  // namespace lighthouse

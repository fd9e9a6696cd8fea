#include "plan/device_profile.h"

#include <algorithm>
#include <cctype>
#include <cmath>

namespace lighthouse {
namespace {

constexpr double kTera = 1e12;

// docs/benchmarks.md, NVIDIA H200: FLOPs of causal_attention_flops over the times of dense attention and of attention
// at S; up to 8,192 rows forward+backward is that of the CUDA graph, since a training step queues ahead.
const std::vector<AttentionRate>& hopper_attention() {
  static const std::vector<AttentionRate> rates = {
      {384, 12 * kTera, 28 * kTera},      {768, 40 * kTera, 74 * kTera},      {1536, 110 * kTera, 177 * kTera},
      {3072, 180 * kTera, 287 * kTera},   {6144, 310 * kTera, 381 * kTera},   {8192, 466 * kTera, 472 * kTera},
      {12288, 480 * kTera, 508 * kTera},  {18432, 555 * kTera, 545 * kTera},  {32768, 600 * kTera, 562 * kTera},
      {65536, 600 * kTera, 556 * kTera},  {98304, 592 * kTera, 556 * kTera},  {131072, 581 * kTera, 542 * kTera},
      {262144, 541 * kTera, 535 * kTera}, {524288, 523 * kTera, 534 * kTera},
  };
  return rates;
}

constexpr double kGiB = 1024.0 * 1024 * 1024;
constexpr double kH200MemoryBytesPerS = 4.8 * kTera;  // data sheet
constexpr double kHostBytesPerS = 50e9;               // PCIe 5 x16

std::string lower(std::string_view text) {
  std::string result(text);
  std::transform(result.begin(), result.end(), result.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return result;
}

void scale_arithmetic(DeviceProfile& profile, double faster) {
  profile.measured = false;
  profile.product_flops *= faster;
  for (AttentionRate& rate : profile.attention) {
    rate.forward *= faster;
    rate.both *= faster;
  }
}

}  // namespace

const std::vector<DeviceProfile>& device_profiles() {
  static const std::vector<DeviceProfile> profiles = {
      {"h200", true, static_cast<int64_t>(139.7 * kGiB), 989.4 * kTera, 66.9 * kTera, 690 * kTera, 4.25 * kTera,
       kHostBytesPerS, hopper_attention()},
      {"h100", false, static_cast<int64_t>(79.1 * kGiB), 989.4 * kTera, 66.9 * kTera, 640 * kTera, 3.0 * kTera,
       kHostBytesPerS, hopper_attention()},
  };
  return profiles;
}

const DeviceProfile* find_profile(std::string_view device_name) {
  const std::string name = lower(device_name);
  for (const char* other : {"pcie", "nvl", "gh200"}) {  // slower or larger cards of the same name
    if (name.find(other) != std::string::npos) return nullptr;
  }
  for (const DeviceProfile& profile : device_profiles()) {
    if (name.find(profile.name) != std::string::npos) return &profile;
  }
  return nullptr;
}

DeviceProfile scaled_profile(const std::string& name, int64_t memory_bytes, double peak_flops,
                             double memory_bytes_per_s) {
  DeviceProfile profile = device_profiles().front();
  const double faster = peak_flops / profile.peak_flops;
  scale_arithmetic(profile, faster);
  profile.name = name;
  profile.memory_bytes = memory_bytes;
  profile.peak_flops *= faster;
  profile.fp32_peak_flops *= faster;
  profile.copy_bytes_per_s *= memory_bytes_per_s / kH200MemoryBytesPerS;
  return profile;
}

DeviceProfile in_precision(DeviceProfile profile, Precision precision) {
  if (precision == Precision::kBf16) return profile;
  scale_arithmetic(profile, profile.fp32_peak_flops / profile.peak_flops);
  profile.peak_flops = profile.fp32_peak_flops;
  return profile;
}

AttentionRate attention_rate(const DeviceProfile& profile, double length) {
  const std::vector<AttentionRate>& rates = profile.attention;
  if (length <= rates.front().length) return {length, rates.front().forward, rates.front().both};
  if (length >= rates.back().length) return {length, rates.back().forward, rates.back().both};
  const auto above = std::find_if(rates.begin(), rates.end(), [&](const auto& rate) { return rate.length >= length; });
  const AttentionRate& below = *(above - 1);
  const double weight = std::log(length / below.length) / std::log(above->length / below.length);
  return {length, std::lerp(below.forward, above->forward, weight), std::lerp(below.both, above->both, weight)};
}

}  // namespace lighthouse

// Checkpoints that are all different, and what is said when they are loaded.
#pragma once

#include <ATen/ops/arange.h>
#include <ATen/ops/remainder.h>

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

#include "cpp/train/sorted.h"
#include "cpp/train/train_support.h"
#include "train/checkpoint.h"

namespace lighthouse {

/// Values that depend on the step, so that tensors of two checkpoints are not taken for one another.
inline at::Tensor counting(int64_t step, at::IntArrayRef shape, at::ScalarType dtype) {
  int64_t count = 1;
  for (const int64_t size : shape) count *= size;
  return at::remainder(at::arange(7 * step, 7 * step + count, at::kLong), 101).reshape(shape).to(dtype);
}

inline Checkpoint example(int64_t step) {
  return {step,
          {{"embed.weight", counting(step, {5, 3}, at::kFloat)}, {"a.bias", counting(step, {7}, at::kBFloat16)}},
          whole_ranges({{"embed.weight.exp_avg", counting(step + 1, {5, 3}, at::kFloat)},
                        {"step", counting(step, {}, at::kLong)}}),
          R"({"position": )" + std::to_string(step * 10) + "}",
          ""};
}

inline bool same(const Checkpoint& a, const Checkpoint& b) {
  return a.step == b.step && a.state_json == b.state_json && same_tensors(a.model, b.model) &&
         same_tensors(a.optimizer, b.optimizer);
}

/// The newest whole checkpoint and what was said about the others.
struct Loaded {
  std::vector<std::string> warnings;
  std::optional<Checkpoint> checkpoint;

  explicit Loaded(const std::filesystem::path& run)
      : checkpoint(load_latest_checkpoint(run, [this](const std::string& text) { warnings.push_back(text); })) {}
};

inline void flip_bit(const std::filesystem::path& path, size_t byte, int bit = 0) {
  std::string bytes = read_bytes(path);
  bytes.at(byte) = static_cast<char>(bytes.at(byte) ^ (1 << bit));
  write_bytes(path, bytes);
}

}  // namespace lighthouse

// Checkpoints of a few numbers that tell them from others, saved by ranks that are threads.
#pragma once

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <string>

#include "cpp/train/local_ranks.h"
#include "cpp/train/sorted.h"
#include "cpp/train/train_support.h"
#include "train/checkpoint.h"

namespace lighthouse {

/// A checkpoint of `step` whose values tell it from others.
inline Checkpoint with_value(int64_t step, int64_t value) {
  const auto tensor = [&](int64_t number) { return at::arange(100, at::kFloat) * 1000 + (10 * value + number); };
  return {step,
          {{"w", tensor(1)}, {"v", tensor(2)}},
          whole_ranges({{"w.exp_avg", tensor(3)}, {"v.exp_avg", tensor(4)}}),
          "{}",
          ""};
}

/// What one of the ranks writes of it: the first all moments but one.
inline Checkpoint part_of(const Checkpoint& whole, const CheckpointRanks& ranks) {
  if (ranks.size == 1) return whole;
  return {
      whole.step, weights_of_rank(whole.model, ranks), {whole.optimizer.at(static_cast<size_t>(ranks.rank))}, "{}", ""};
}

/// Whether all ranks say that it is saved; they must agree.
inline bool save(const std::filesystem::path& run, const Checkpoint& whole, int64_t size, int64_t keep = 3) {
  std::atomic<int64_t> saved = 0;
  on_ranks(size, [&](const CheckpointRanks& ranks) {
    try {
      save_checkpoint(run, part_of(whole, ranks), keep, ranks);
      ++saved;
    } catch (const std::exception&) {  // on every rank
    }
  });
  EXPECT_TRUE(saved == 0 || saved == size) << saved << " of " << size;
  return saved > 0;
}

/// The value of the newest checkpoint, which must be whole.
inline int64_t value_in(const std::filesystem::path& run) {
  const auto found = load_latest_checkpoint(run, [](const std::string& text) { ADD_FAILURE() << text; });
  if (!found) return -1;
  return found->model.front().second[0].item<int64_t>() / 10;
}

}  // namespace lighthouse

// A loss of power at any moment of a save: whatever part of what was not yet on the disk is there, a checkpoint loads.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <optional>

#include "cpp/train/injected_faults.h"
#include "cpp/train/valued_checkpoints.h"
#include "cpp/train/write_log.h"
#include "support/environment_number.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;

std::optional<WriteLog> write_log;

/// How many ranks save, how many checkpoints stay, and whether the step that is saved is there already.
class PowerLoss : public ::testing::TestWithParam<std::tuple<int64_t, int64_t, bool>> {
 protected:
  ~PowerLoss() override {
    faults::clear();
    faults::syncs = true;
    write_log.reset();
  }

  int64_t size() const { return std::get<0>(GetParam()); }
  int64_t keep() const { return std::get<1>(GetParam()); }
  int64_t step_of(int64_t value) const { return std::get<2>(GetParam()) ? 10 : 10 * value; }

  /// Values 1 and 2 are saved before; 3 and 4 are saved into the log. Returns where in the log each of them is done.
  std::vector<size_t> record() {
    faults::syncs = false;
    for (const int64_t value : {1, 2})
      EXPECT_TRUE(save(run_.path(), with_value(step_of(value), value), size(), keep()));
    write_log.emplace(run_.path());
    faults::after_change = [](const faults::Change& change) { write_log->add(change); };
    std::vector<size_t> ends;
    for (const int64_t value : {3, 4}) {
      EXPECT_TRUE(save(run_.path(), with_value(step_of(value), value), size(), keep()));
      ends.push_back(write_log->size());
    }
    faults::after_change = nullptr;
    return ends;
  }

  /// The newest checkpoint of a run, whole, is of a value from `least` to `most`.
  void expect_whole(const fs::path& run, int64_t least, int64_t most) {
    const int64_t value = value_in(run);
    EXPECT_TRUE(least <= value && value <= most) << "value " << value << ", not " << least << " to " << most;
    if (value < 1) return;
    const Checkpoint found = load_checkpoint(list_checkpoints(run).front());
    const Checkpoint saved = with_value(step_of(value), value);
    EXPECT_TRUE(same_tensors(by_name(found.model), by_name(saved.model)));
    EXPECT_TRUE(same_tensors(by_name(whole_tensors(found.optimizer)), by_name(whole_tensors(saved.optimizer))));
  }

  TemporaryFolder run_, states_;
};

/// Names and contents of all files of a folder.
std::map<std::string, std::string> files_of(const fs::path& folder) {
  std::map<std::string, std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder)) {
    files[entry.path().lexically_relative(folder)] = entry.is_directory() ? "" : read_bytes(entry.path());
  }
  return files;
}

// LIGHTHOUSE_TEST_STATES says how many random ones of each moment.
TEST_P(PowerLoss, AtAnyMomentLeavesACheckpoint) {
  const int random = environment_number("LIGHTHOUSE_TEST_STATES", 1);
  const std::vector<size_t> ends = record();
  std::mt19937_64 source(1);
  const fs::path state = states_ / "state";
  write_log->replay(write_log->size(), {}, state);
  ASSERT_TRUE(files_of(state) == files_of(run_.path())) << "not every call is in the log";
  fs::remove_all(state);
  int64_t states = 0;
  for (size_t length = 0; length <= write_log->size(); ++length) {
    const int64_t saved = 2 + std::count_if(ends.begin(), ends.end(), [&](size_t end) { return end <= length; });
    const std::vector<size_t> open = write_log->not_durable(length);
    for (const WriteLog::Fates& fates : fates_of(open, random, source)) {
      write_log->replay(length, fates, state);
      expect_whole(state, saved, std::min<int64_t>(saved + 1, 4));
      ++states;
      if (fates.empty()) {  // the run goes on
        EXPECT_TRUE(save(state, with_value(50, 5), size(), keep()));
        for (const std::string& name : names_in(state / "checkpoints")) EXPECT_TRUE(name.starts_with("step-")) << name;
      }
      fs::remove_all(state);
      if (HasFailure()) FAIL() << "after " << length << " of " << write_log->size() << " calls";
    }
  }
  std::printf("%zu calls, %lld states\n", write_log->size(), static_cast<long long>(states));
}

INSTANTIATE_TEST_SUITE_P(Saves, PowerLoss,
                         ::testing::Combine(::testing::Values(1, 2), ::testing::Values(1, 3), ::testing::Bool()),
                         [](const auto& instance) {
                           return std::to_string(std::get<0>(instance.param)) + "RanksKeep" +
                                  std::to_string(std::get<1>(instance.param)) +
                                  (std::get<2>(instance.param) ? "Again" : "");
                         });

}  // namespace
}  // namespace lighthouse

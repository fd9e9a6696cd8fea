// Every call on files that a save makes fails once, and is the last of its process once.
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <csignal>

#include "cpp/train/injected_faults.h"
#include "cpp/train/local_ranks.h"
#include "cpp/train/train_support.h"
#include "train/checkpoint.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::ElementsAre;

std::atomic<int> calls_left;
std::atomic<int> answer;  // to the call when none is left; SIGKILL's own number stands for it

int answer_at_the_last() {
  if (calls_left-- != 0) return 0;
  if (answer == -SIGKILL) ::raise(SIGKILL);
  return answer;
}

/// A checkpoint of `step` whose values tell it from others.
Checkpoint with_value(int64_t step, int64_t value) {
  const auto tensor = [&](int64_t number) { return at::full({100}, 10 * value + number, at::kFloat); };
  return {step,
          {{"w", tensor(1)}, {"v", tensor(2)}},
          whole_ranges({{"w.exp_avg", tensor(3)}, {"v.exp_avg", tensor(4)}}),
          "{}",
          ""};
}

/// What one of the ranks writes of it: the first all moments but one.
Checkpoint part_of(const Checkpoint& whole, const CheckpointRanks& ranks) {
  if (ranks.size == 1) return whole;
  return {
      whole.step, weights_of_rank(whole.model, ranks), {whole.optimizer.at(static_cast<size_t>(ranks.rank))}, "{}", ""};
}

/// Whether all ranks say that it is saved; they must agree.
bool save(const fs::path& run, const Checkpoint& whole, int64_t size) {
  std::atomic<int64_t> saved = 0;
  on_ranks(size, [&](const CheckpointRanks& ranks) {
    try {
      save_checkpoint(run, part_of(whole, ranks), 3, ranks);
      ++saved;
    } catch (const std::exception&) {  // on every rank
    }
  });
  EXPECT_TRUE(saved == 0 || saved == size) << saved << " of " << size;
  return saved > 0;
}

/// The value of the newest checkpoint, which must be whole.
int64_t value_in(const fs::path& run) {
  const auto found = load_latest_checkpoint(run, [](const std::string& text) { ADD_FAILURE() << text; });
  if (!found) return -1;
  return found->model.front().second[0].item<int64_t>() / 10;
}

std::vector<std::string> names_in(const fs::path& folder) {
  std::vector<std::string> names;
  for (const auto& entry : fs::directory_iterator(folder)) names.push_back(entry.path().filename());
  std::sort(names.begin(), names.end());
  return names;
}

/// How many ranks save, and whether a checkpoint of the same step is there already.
class CheckpointFaults : public ::testing::TestWithParam<std::tuple<int64_t, bool>> {
 protected:
  CheckpointFaults() { faults::syncs = false; }  // what a killed process wrote, the system has
  ~CheckpointFaults() override { faults::syncs = true; }

  int64_t size() const { return std::get<0>(GetParam()); }
  int64_t step() const { return std::get<1>(GetParam()) ? 10 : 20; }

  /// A run whose newest checkpoint has the value 1.
  void begin_again() {
    fs::remove_all(run_ / "checkpoints");
    ASSERT_TRUE(save(run_.path(), with_value(10, 1), size()));
  }

  TemporaryFolder run_;
};

TEST_P(CheckpointFaults, ACallThatFailsLosesNothing) {
  for (const int error : {EIO, ENOSPC}) {
    begin_again();
    for (int call = 0, left = -1; left < 0; ++call) {
      calls_left = call;
      answer = error;
      faults::before_change = answer_at_the_last;
      const bool saved = save(run_.path(), with_value(step(), 2), size());
      left = calls_left;
      faults::clear();
      EXPECT_EQ(value_in(run_.path()), saved ? 2 : 1) << "call " << call << ", error " << error;
      if (!saved && size() == 1) {
        EXPECT_THAT(names_in(run_ / "checkpoints"), ElementsAre("step-00000010"));
      }
      if (saved) begin_again();
      ASSERT_LT(call, 500);
    }
  }
}

TEST_P(CheckpointFaults, AKillAtACallLosesNothing) {
  begin_again();
  for (int call = 0, status = 1; status != 0; ++call) {
    const pid_t child = ::fork();
    if (child == 0) {
      calls_left = call;
      answer = -SIGKILL;
      faults::before_change = answer_at_the_last;
      save(run_.path(), with_value(step(), 2), size());
      ::_exit(0);
    }
    ::waitpid(child, &status, 0);
    const int64_t value = value_in(run_.path());
    EXPECT_TRUE(value == 1 || value == 2) << "call " << call;
    EXPECT_TRUE(save(run_.path(), with_value(30, 3), size())) << "call " << call;
    for (const std::string& name : names_in(run_ / "checkpoints")) {
      EXPECT_TRUE(name.starts_with("step-")) << name << " stays after call " << call;
    }
    EXPECT_LE(count_entries(run_ / "checkpoints"), step() == 10 ? 2U : 3U) << "one of each step";
    begin_again();
    ASSERT_LT(call, 500);
  }
}

INSTANTIATE_TEST_SUITE_P(Saves, CheckpointFaults, ::testing::Combine(::testing::Values(1, 2), ::testing::Bool()),
                         [](const auto& instance) {
                           return std::to_string(std::get<0>(instance.param)) + "Ranks" +
                                  (std::get<1>(instance.param) ? "Again" : "");
                         });

}  // namespace
}  // namespace lighthouse

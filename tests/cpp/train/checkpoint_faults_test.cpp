// Every call on files that a save makes fails once, and is the last of its process once.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <cerrno>
#include <csignal>
#include <cstdio>

#include "cpp/train/injected_faults.h"
#include "cpp/train/valued_checkpoints.h"

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
      if (left >= 0) std::printf("%d calls failed with error %d\n", call, error);
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
    if (status == 0) std::printf("%d calls were the last\n", call);
  }
}

INSTANTIATE_TEST_SUITE_P(Saves, CheckpointFaults, ::testing::Combine(::testing::Values(1, 2), ::testing::Bool()),
                         [](const auto& instance) {
                           return std::to_string(std::get<0>(instance.param)) + "Ranks" +
                                  (std::get<1>(instance.param) ? "Again" : "");
                         });

}  // namespace
}  // namespace lighthouse

#include "train/schedule.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <numbers>
#include <random>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

OptimizerConfig config(Schedule schedule, int64_t warmup_steps, double min_ratio, int64_t decay_steps = 0) {
  OptimizerConfig optimizer;
  optimizer.learning_rate = 0.5;
  optimizer.warmup_steps = warmup_steps;
  optimizer.schedule = schedule;
  optimizer.min_learning_rate_ratio = min_ratio;
  optimizer.decay_steps = decay_steps;
  return optimizer;
}

/// Fewer than eight operations on numbers of at most 1, each rounded once.
void expect_rate(double actual, double expected) {
  EXPECT_NEAR(actual, expected, 8 * std::numeric_limits<double>::epsilon());
}

TEST(Stage, IsLighthouseBelowItsStepsAndDenseFromThere) {
  TrainingConfig training;
  training.steps = 10;
  training.lighthouse_steps = 7;
  EXPECT_EQ(stage_at(training, 0), Stage::kLighthouse);
  EXPECT_EQ(stage_at(training, 6), Stage::kLighthouse);
  EXPECT_EQ(stage_at(training, 7), Stage::kDense);
  EXPECT_EQ(stage_at(training, 9), Stage::kDense);
  training.lighthouse_steps = 0;
  EXPECT_EQ(stage_at(training, 0), Stage::kDense);
  training.lighthouse_steps = 10;
  EXPECT_EQ(stage_at(training, 9), Stage::kLighthouse);
}

/// Whether the first `num_done` steps of two runs are alike, step by step.
bool alike(const RunConfig& before, const RunConfig& now, int64_t num_done) {
  for (int64_t step = 0; step < num_done; ++step) {
    if (step >= now.training.steps || stage_at(before.training, step) != stage_at(now.training, step) ||
        learning_rate_at(before.optimizer, before.training.steps, step) !=
            learning_rate_at(now.optimizer, now.training.steps, step)) {
      return false;
    }
  }
  return true;
}

TEST(DifferenceOfPast, IsEmptyWhereTheStepsThatAreDoneAreAlike) {
  std::mt19937 random(1);
  const auto draw = [&](int64_t end) { return std::uniform_int_distribution<int64_t>(0, end - 1)(random); };
  int64_t num_alike = 0, num_same = 0;
  for (int round = 0; round < 20000; ++round) {
    RunConfig before, now;
    const int64_t warmup = draw(4);
    for (RunConfig* run : {&before, &now}) {
      run->optimizer = config(static_cast<Schedule>(draw(4)), warmup, draw(2) == 0 ? 0.1 : 0.2, draw(4));
      run->training.steps = 4 + draw(6);
      run->training.lighthouse_steps = draw(2) == 0 ? 4 : draw(run->training.steps + 1);
    }
    const int64_t num_done = draw(before.training.steps + 1);
    const bool expected = alike(before, now, num_done), is_same = difference_of_past(before, now, num_done).empty();
    EXPECT_TRUE(expected || !is_same) << "steps that are done would have been others";
    num_alike += expected;
    num_same += is_same;
  }
  EXPECT_GT(num_alike, 5000);
  EXPECT_GE(num_same, num_alike - 100) << "all but decays of other words with the same rates";
}

TEST(LearningRate, WarmsUpLinearlyInEverySchedule) {
  for (const Schedule schedule : {Schedule::kConstant, Schedule::kCosine, Schedule::kLinear, Schedule::kWsd}) {
    const OptimizerConfig optimizer = config(schedule, 4, 0.1);
    for (int64_t step = 0; step < 4; ++step) {
      expect_rate(learning_rate_at(optimizer, 20, step), 0.5 * static_cast<double>(step + 1) / 4);
    }
  }
}

TEST(LearningRate, EndsAtTheMinimumInEveryScheduleThatFalls) {
  for (const int64_t warmup : {0, 1, 7, 19}) {
    for (const Schedule schedule : {Schedule::kCosine, Schedule::kLinear, Schedule::kWsd}) {
      expect_rate(learning_rate_at(config(schedule, warmup, 0.1), 20, 19), 0.05);
      expect_rate(learning_rate_at(config(schedule, warmup, 0), 20, 19), 0);
    }
    expect_rate(learning_rate_at(config(Schedule::kConstant, warmup, 0.1), 20, 19), 0.5);
  }
}

TEST(LearningRate, FollowsTheClosedForms) {
  for (int64_t step = 5; step < 25; ++step) {
    const double t = static_cast<double>(step + 1 - 5) / 20;
    expect_rate(learning_rate_at(config(Schedule::kConstant, 5, 0.2), 25, step), 0.5);
    expect_rate(learning_rate_at(config(Schedule::kLinear, 5, 0.2), 25, step), 0.5 * (1 - 0.8 * t));
    expect_rate(learning_rate_at(config(Schedule::kCosine, 5, 0.2), 25, step),
                0.5 * (0.2 + 0.4 * (1 + std::cos(std::numbers::pi * t))));
  }
  expect_rate(learning_rate_at(config(Schedule::kCosine, 5, 0.2), 25, 14), 0.3);  // half way: the mean of both ends
}

TEST(LearningRate, WsdIsFlatAndThenFallsLinearly) {
  const OptimizerConfig optimizer = config(Schedule::kWsd, 2, 0.1, 5);
  for (int64_t step = 2; step < 15; ++step) expect_rate(learning_rate_at(optimizer, 20, step), 0.5);
  for (int64_t step = 15; step < 20; ++step) {
    expect_rate(learning_rate_at(optimizer, 20, step), 0.5 * (1 - 0.9 * static_cast<double>(step + 1 - 15) / 5));
  }
}

TEST(LearningRate, WsdDecaysOverATenthByDefaultAndOverOneStepAtLeast) {
  const OptimizerConfig optimizer = config(Schedule::kWsd, 0, 0.1);
  expect_rate(learning_rate_at(optimizer, 100, 89), 0.5);
  expect_rate(learning_rate_at(optimizer, 100, 90), 0.5 * (1 - 0.9 / 10));
  expect_rate(learning_rate_at(optimizer, 5, 3), 0.5);
  expect_rate(learning_rate_at(optimizer, 5, 4), 0.05);
}

TEST(LearningRate, WsdDoesNotDecayBeforeTheWarmUpIsOver) {
  const OptimizerConfig optimizer = config(Schedule::kWsd, 12, 0.1, 20);
  expect_rate(learning_rate_at(optimizer, 20, 11), 0.5);
  expect_rate(learning_rate_at(optimizer, 20, 12), 0.5 * (1 - 0.9 / 8));
}

TEST(LearningRate, OfARunThatIsAllWarmUp) {
  for (const Schedule schedule : {Schedule::kConstant, Schedule::kCosine, Schedule::kLinear, Schedule::kWsd}) {
    expect_rate(learning_rate_at(config(schedule, 8, 0.1), 8, 0), 0.5 / 8);
    expect_rate(learning_rate_at(config(schedule, 8, 0.1), 8, 7), 0.5);
    expect_rate(learning_rate_at(config(schedule, 1, 0.1), 1, 0), 0.5);
  }
}

TEST(LearningRate, RefusesStepsThatThereAreNot) {
  EXPECT_THROW(learning_rate_at(config(Schedule::kCosine, 0, 0), 5, -1), InvalidArgument);
  EXPECT_THROW(learning_rate_at(config(Schedule::kCosine, 0, 0), 5, 5), InvalidArgument);
}

}  // namespace
}  // namespace lighthouse

#include "train/spike_detector.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

/// Losses of 2 and 2.1, gradient norms of 1, in turns.
void calm_steps(SpikeDetector& detector, int count, Stage stage = Stage::kLighthouse) {
  for (int i = 0; i < count; ++i) EXPECT_THAT(detector.add(stage, 2 + 0.1 * (i % 2), 1), IsEmpty()) << i;
}

TEST(SpikeDetector, NamesTheLossAndTheGradientNormThatStandOut) {
  SpikeDetector detector;
  calm_steps(detector, 10);
  EXPECT_THAT(detector.add(Stage::kLighthouse, 7.2, 83),
              AllOf(HasSubstr("loss 7.2000 (usually 2.1000)"), HasSubstr("gradient norm 83.00 (usually 1.00)")));
  EXPECT_THAT(detector.add(Stage::kLighthouse, 2.0, 11), AllOf(HasSubstr("gradient norm"), Not(HasSubstr("loss"))));
  EXPECT_THAT(detector.add(Stage::kLighthouse, 4.0, 1), HasSubstr("loss"));
  EXPECT_EQ(detector.count(), 3);
}

TEST(SpikeDetector, WhatVariesAnywayIsNoSpike) {
  SpikeDetector detector;
  // As much text as code: losses of 1 and 2 in turns.
  for (int i = 0; i < 40; ++i) EXPECT_THAT(detector.add(Stage::kLighthouse, 1 + i % 2, 1), IsEmpty());
  EXPECT_THAT(detector.add(Stage::kLighthouse, 3.5, 10), IsEmpty());
  EXPECT_EQ(detector.count(), 0);
}

TEST(SpikeDetector, ATenthOfTheMedianIsTheLeast) {
  SpikeDetector detector;
  for (int i = 0; i < 20; ++i) EXPECT_THAT(detector.add(Stage::kDense, 2, 1), IsEmpty());
  EXPECT_THAT(detector.add(Stage::kDense, 2.19, 1), IsEmpty()) << "all were equal, and yet no spike";
  EXPECT_THAT(detector.add(Stage::kDense, 2.21, 1), HasSubstr("loss"));
}

TEST(SpikeDetector, TheFirstStepsOfAStageAreComparedWithNothing) {
  SpikeDetector detector;
  calm_steps(detector, 7);
  EXPECT_THAT(detector.add(Stage::kLighthouse, 50, 500), IsEmpty());
  EXPECT_THAT(detector.add(Stage::kLighthouse, 50, 500), HasSubstr("loss"));
  EXPECT_THAT(detector.add(Stage::kDense, 60, 900), IsEmpty()) << "the switch";
  calm_steps(detector, 7, Stage::kDense);
  EXPECT_THAT(detector.add(Stage::kDense, 50, 500), HasSubstr("loss"));
}

TEST(SpikeDetector, GoesOnFromItsJson) {
  SpikeDetector unbroken;
  calm_steps(unbroken, 40);
  EXPECT_THAT(unbroken.add(Stage::kLighthouse, 9, 1), HasSubstr("loss"));
  SpikeDetector resumed;
  resumed.load_json(nlohmann::json::parse(unbroken.to_json().dump()));
  EXPECT_EQ(resumed.to_json(), unbroken.to_json());
  EXPECT_EQ(resumed.count(), 1);
  EXPECT_EQ(resumed.add(Stage::kLighthouse, 8, 30), unbroken.add(Stage::kLighthouse, 8, 30));
}

}  // namespace
}  // namespace lighthouse

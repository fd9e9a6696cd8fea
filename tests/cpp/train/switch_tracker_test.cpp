#include "train/switch_tracker.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

TrainingConfig stages(int64_t lighthouse_steps, int64_t steps) {
  TrainingConfig training;
  training.steps = steps;
  training.lighthouse_steps = lighthouse_steps;
  return training;
}

// Whatever is to come, so that a run that is made longer says what an unbroken one says.
TEST(SwitchTracker, SmoothsTheLastTwentyStepsOfAStage) {
  for (const int64_t steps : {31, 400}) {
    SwitchTracker tracker(stages(30, steps));
    for (int64_t step = 1; step <= 30; ++step) tracker.add_loss(step, static_cast<double>(step));
    EXPECT_EQ(tracker.smoothed_loss(), 20.5) << "of 11 to 30";
    EXPECT_THAT(tracker.add_loss(31, 21.0), AllOf(HasSubstr("+0.5000"), HasSubstr("the last 20 steps")));
  }
}

TEST(SwitchTracker, ForgetsASwitchThatIsPutOff) {
  SwitchTracker before(stages(4, 11));
  for (int64_t step = 1; step <= 4; ++step) before.add_loss(step, 5.0);
  before.add_validation(4, 7.0, 5.0);
  SwitchTracker after(stages(6, 11));
  after.load_json(before.to_json(), 4);
  EXPECT_EQ(after.report(), SwitchReport{});
  EXPECT_EQ(after.smoothed_loss(), 5.0);
}

// The mean of the four losses before the switch is 5.
TEST(SwitchTracker, JumpOfTheTrainingLoss) {
  SwitchTracker tracker(stages(4, 11));
  EXPECT_EQ(tracker.smoothed_loss(), std::nullopt);
  int64_t step = 0;
  for (const double loss : {6.0, 4.0, 5.0, 5.0}) EXPECT_THAT(tracker.add_loss(++step, loss), IsEmpty());
  EXPECT_EQ(tracker.smoothed_loss(), 5.0);
  EXPECT_EQ(tracker.report(), SwitchReport{});

  EXPECT_THAT(tracker.add_loss(5, 6.5), AllOf(HasSubstr("step 5"), HasSubstr("6.5000"), HasSubstr("+1.5000")));
  EXPECT_EQ(tracker.report().pre_switch_loss, 5.0);
  EXPECT_EQ(tracker.report().loss_jump, 1.5);
  EXPECT_EQ(tracker.smoothed_loss(), 6.5);
}

// Losses of stage 1 look ahead: that a training loss falls below them or does not says nothing of the dense model.
TEST(SwitchTracker, TrainingLossesNeverMeanRecovery) {
  SwitchTracker tracker(stages(4, 11));
  for (int64_t step = 1; step <= 4; ++step) EXPECT_THAT(tracker.add_loss(step, 5.0), IsEmpty());
  EXPECT_THAT(tracker.add_validation(4, 7.0, 5.0), HasSubstr("+2.0000"));
  EXPECT_THAT(tracker.add_loss(5, 6.0), HasSubstr("first with dense attention"));
  for (int64_t step = 6; step <= 11; ++step) EXPECT_THAT(tracker.add_loss(step, 1.0), IsEmpty());
  EXPECT_THAT(tracker.add_validation(11, 6.0, 5.0), IsEmpty());
  EXPECT_EQ(tracker.report().validation_recovered_step, std::nullopt);
  EXPECT_THAT(summary(tracker.report(), 4, -1.0), AllOf(HasSubstr("not recovered yet"), HasSubstr("1.0000 lower")));
}

TEST(SwitchTracker, JumpAndRecoveryOfTheValidationLoss) {
  SwitchTracker tracker(stages(4, 12));
  EXPECT_THAT(tracker.add_validation(2, 1.0, 1.0), IsEmpty());
  EXPECT_THAT(tracker.add_validation(4, 3.5, 3.25), AllOf(HasSubstr("3.2500"), HasSubstr("+0.2500")));
  EXPECT_EQ(tracker.report().pre_switch_validation, 3.25);
  EXPECT_EQ(tracker.report().validation_jump, 0.25);
  EXPECT_THAT(tracker.add_validation(6, 3.25, std::nullopt), IsEmpty());  // not below
  EXPECT_THAT(tracker.add_validation(8, 3.0, std::nullopt),
              HasSubstr("recovered at step 8: below the pre-switch loss"));
  EXPECT_EQ(tracker.report().validation_recovered_step, 8);
  EXPECT_THAT(tracker.add_validation(10, 2.0, std::nullopt), IsEmpty());
}

TEST(SwitchTracker, RunsOfOneStageHaveNoSwitch) {
  for (const int64_t lighthouse_steps : {0, 6}) {
    SwitchTracker tracker(stages(lighthouse_steps, 6));
    for (int64_t step = 1; step <= 6; ++step) {
      EXPECT_THAT(tracker.add_loss(step, 7.0 - static_cast<double>(step)), IsEmpty());
      EXPECT_THAT(tracker.add_validation(step, 1.0, 1.0), IsEmpty());
    }
    EXPECT_EQ(tracker.report(), SwitchReport{});
    EXPECT_EQ(tracker.smoothed_loss(), 3.5);
    EXPECT_THAT(summary(tracker.report(), lighthouse_steps, std::nullopt), IsEmpty());
  }
}

TEST(SwitchTracker, WithoutALossInStageOneThereIsNothingToCompare) {
  SwitchTracker tracker(stages(2, 6));
  EXPECT_THAT(tracker.add_loss(3, 5.0), IsEmpty());
  EXPECT_THAT(tracker.add_loss(4, 4.0), IsEmpty());
  EXPECT_EQ(tracker.report(), SwitchReport{});
  EXPECT_EQ(tracker.smoothed_loss(), 4.5);
}

TEST(SwitchTracker, GoesOnFromItsJsonAtEveryStep) {
  const auto loss = [](int64_t step) { return 5.0 + 1.0 / static_cast<double>(step * step % 7 + 3); };
  const auto add = [&](SwitchTracker& tracker, int64_t step) {
    tracker.add_loss(step, loss(step));
    if (step % 2 == 0) tracker.add_validation(step, loss(step), loss(step) - 0.1);
  };
  const TrainingConfig training = stages(6, 12);
  SwitchTracker unbroken(training);
  for (int64_t step = 1; step <= 12; ++step) add(unbroken, step);
  for (int64_t stop = 0; stop <= 12; ++stop) {
    SwitchTracker first(training);
    for (int64_t step = 1; step <= stop; ++step) add(first, step);
    SwitchTracker second(training);
    second.load_json(nlohmann::json::parse(first.to_json().dump()), stop);
    for (int64_t step = stop + 1; step <= 12; ++step) add(second, step);
    EXPECT_EQ(second.to_json(), unbroken.to_json()) << "stopped after step " << stop;
  }
}

TEST(SwitchTracker, SummaryTellsWhetherTheDenseModelRecovered) {
  SwitchReport report;
  report.pre_switch_validation = 2.0;
  report.validation_jump = 0.25;
  EXPECT_EQ(summary(report, 300, std::nullopt),
            "switch to dense attention after step 300: validation loss 2.0000 before, +0.2500 with dense attention, "
            "not recovered yet");
  report.validation_recovered_step = 318;
  report.pre_switch_loss = 2.5;
  report.loss_jump = 0.125;
  EXPECT_EQ(summary(report, 300, 0.5),
            "switch to dense attention after step 300: validation loss 2.0000 before, +0.2500 with dense attention, "
            "recovered at step 318: below the pre-switch loss; with Lighthouse attention it is 0.5000 higher: it leans "
            "on stage 1 no more; training loss 2.5000 before (it looks ahead), +0.1250 at the first dense step");
  EXPECT_THAT(summary(report, 300, -0.03), HasSubstr("0.0300 lower: the model still leans on stage 1"));
}

}  // namespace
}  // namespace lighthouse

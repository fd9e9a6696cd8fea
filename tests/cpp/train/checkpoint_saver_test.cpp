#include "train/checkpoint_saver.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/train/train_support.h"
#include "lighthouse/check.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr int64_t kElements = 1 << 20;

class Saver : public ::testing::TestWithParam<bool> {
 protected:
  Saver() {
    const auto options = at::TensorOptions(at::kFloat).device(test_device());
    model_ = {{"on the host", at::full({7, 1000}, 0.25)},
              {"weight", at::arange(kElements, options).view({1024, -1}).requires_grad_()},
              {"half", at::full({3, 5}, 0.5, options.dtype(at::kBFloat16))}};
    optimizer_ = {{"step", at::full({}, 7, options)}, {"weight.exp_avg", at::arange(kElements, options)}};
  }
  CheckpointSaver saver() {
    return {folder_.path(), {.keep = 2, .asynchronous = GetParam()}, model_, whole_ranges(optimizer_)};
  }
  Checkpoint newest() { return load_checkpoint(list_checkpoints(folder_.path()).front()); }
  /// What an optimizer step does once the saver lets it.
  void update(CheckpointSaver& saver) {
    saver.finish_copy();
    const at::NoGradGuard no_grad;
    for (const auto& [name, tensor] : model_) tensor.add_(1);
    for (const auto& [name, tensor] : optimizer_) tensor.mul_(3);
  }

  TemporaryFolder folder_;
  NamedTensors model_, optimizer_;
};

TEST_P(Saver, WritesTheTensorsOfTheStart) {
  CheckpointSaver saver = this->saver();
  for (const int64_t step : {1, 2, 3}) {  // the copies are used again
    const NamedTensors model = copies(model_);
    const NamedTensors optimizer = copies(optimizer_);
    saver.start(step, "{}");
    update(saver);
    saver.take_end();
    EXPECT_EQ(newest().step, step);
    EXPECT_TRUE(same_tensors(newest().model, model));
    EXPECT_TRUE(same_tensors(whole_tensors(newest().optimizer), optimizer));
  }
  EXPECT_EQ(list_checkpoints(folder_.path()).size(), 2);
}

// The place in torch stood in the message.
TEST(SaverWithoutMemory, SaysWhatWouldDo) {
  const TemporaryFolder folder;
  const NamedTensors huge = {{"huge", at::full({1}, 1.0F).expand({int64_t{1} << 50})}};
  const std::string message = message_of<std::runtime_error>(
      [&] { CheckpointSaver(folder.path(), {.keep = 2, .asynchronous = true}, huge, {}); });
  EXPECT_THAT(message, AllOf(HasSubstr("of host memory to copy checkpoints to (out of memory: "),
                             HasSubstr("checkpoint.asynchronous = false"), Not(HasSubstr("enforce fail"))));
}

TEST_P(Saver, SynchronousOnesAreWholeWhenStartReturns) {
  CheckpointSaver saver = this->saver();
  saver.start(4, "{}");
  EXPECT_TRUE(saver.pending());
  EXPECT_EQ(saver.step(), 4);
  if (!GetParam()) {
    EXPECT_FALSE(saver.under_way());
    EXPECT_EQ(newest().step, 4);
  }
  EXPECT_THAT(message_of<InvalidArgument>([&] { saver.start(5, "{}"); }), HasSubstr("before the end of step 4"));
  saver.take_end();
  EXPECT_FALSE(saver.pending());
  EXPECT_THROW(saver.take_end(), InvalidArgument);
}

TEST_P(Saver, DestructorWaits) {
  saver().start(6, "{}");
  EXPECT_EQ(newest().step, 6);
}

TEST_P(Saver, FailureIsThrownByTakeEndAndTheNextSaveIsFree) {
  write_bytes(folder_ / "checkpoints", "a file in the way");
  CheckpointSaver saver = this->saver();
  saver.start(1, "{}");
  EXPECT_THAT(message_of<std::system_error>([&] { saver.take_end(); }), HasSubstr("checkpoints"));
  fs::remove(folder_ / "checkpoints");
  saver.start(2, "{}");
  saver.take_end();
  EXPECT_EQ(newest().step, 2);
}

INSTANTIATE_TEST_SUITE_P(Asynchronous, Saver, ::testing::Bool());

}  // namespace
}  // namespace lighthouse

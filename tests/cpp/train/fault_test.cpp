// One run of 300 steps through all that goes wrong on a cluster. Nothing of it may be seen in the weights.
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <csignal>
#include <limits>
#include <stdexcept>
#include <thread>

#include "cpp/io/full_disk.h"
#include "cpp/train/train_support.h"
#include "support/test_device.h"
#include "train/checkpoint.h"
#include "train/out_of_memory.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Faults : public ::testing::Test {
 protected:
  RunConfig config(const std::string& run_dir) {
    RunConfig config = tiny_config(folder_);
    config.training.steps = 300;
    config.training.lighthouse_steps = 200;
    config.training.device = test_device().is_cuda() ? DeviceChoice::kCuda : DeviceChoice::kCpu;
    config.training.deterministic = test_device().is_cuda();
    config.checkpoint = {.interval = 10, .keep = 3};
    config.validation.interval = 50;
    config.logging.interval = 10;
    config.logging.run_dir = (folder_ / run_dir).string();
    return config;
  }

  /// Trains with `fault` in every step; returns what the log says, an error as its last line.
  std::string train_with(const RunConfig& config, const std::function<void(int64_t, const NamedTensors&)>& fault) {
    std::ostringstream& log = log_;
    log.str("");
    TrainOptions options;
    options.log = &log;
    options.on_gradients = fault;
    try {
      result_ = train(config, options);
    } catch (const std::exception& error) {
      log << "error: " << error.what();
    }
    return log.str();
  }

  /// A disk without room for tensors from now on; what was begun before is written.
  void fill_disk(const RunConfig& config, int64_t step_begun_before) {
    const auto is_written = [&] {
      const auto checkpoints = list_checkpoints(config.logging.run_dir);
      return !checkpoints.empty() &&
             checkpoints.front().filename().string().ends_with(std::to_string(step_begun_before));
    };
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);  // of a disk that others use too
    while (!is_written()) {
      if (std::chrono::steady_clock::now() > deadline) {
        throw std::runtime_error("step " + std::to_string(step_begun_before) + " was never written");
      }
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    full_disk_.emplace(60000);
  }
  bool log_says(const std::string& text) const { return log_.str().find(text) != std::string::npos; }

  TrainResult result_;
  std::ostringstream log_;
  std::optional<SmallFiles> full_disk_;
  TemporaryFolder folder_;
};

/// Steps counted from 0, as on_gradients does.
void spoil_gradient(int64_t step, const NamedTensors& parameters) {
  if (step == 40) parameters[3].second.grad().flatten()[5].fill_(std::numeric_limits<float>::quiet_NaN());
  if (step == 220) parameters[0].second.grad().flatten()[1].fill_(std::numeric_limits<float>::infinity());
}

int64_t newest_whole_step(const RunConfig& config) {
  const auto checkpoint =
      load_latest_checkpoint(config.logging.run_dir, [](const std::string& text) { ADD_FAILURE() << text; });
  for (const auto& [name, tensor] : checkpoint->model) {
    EXPECT_TRUE(std::isfinite(tensor.to(at::kDouble).sum().item<double>())) << name;
  }
  return checkpoint->step;
}

TEST_F(Faults, ThreeHundredStepsEndWithTheBitsOfAQuietRun) {
  const RunConfig run = config("run");

  // 1. A gradient that is NaN, a disk that is full while two checkpoints are written, a SIGTERM.
  std::string log = train_with(run, [&](int64_t step, const NamedTensors& parameters) {
    spoil_gradient(step, parameters);
    if (step == 65) fill_disk(run, 60);
    if (log_says("step 80 is not saved")) full_disk_.reset();
    if (step == 120) std::raise(SIGTERM);
  });
  EXPECT_THAT(log, AllOf(HasSubstr("step 41 was not applied: not finite: gradient of"),  //
                         HasSubstr("step 70 is not saved: "), HasSubstr("step 80 is not saved: "),
                         HasSubstr("model.safetensors"), HasSubstr("File too large")));
  EXPECT_THAT(log, AllOf(HasSubstr("stopped by SIGTERM after step 121, which is saved"), Not(HasSubstr("error:"))));
  EXPECT_EQ(newest_whole_step(run), 121);

  // 2. More memory asked for than any machine has.
  log = train_with(run, [](int64_t step, const NamedTensors& parameters) {
    if (step == 157) at::empty({int64_t{1} << 52}, parameters[0].second.options());
  });
  EXPECT_THAT(log, AllOf(HasSubstr("resumed at step 121\n"),
                         HasSubstr("error: out of memory in step 158, which did not reach the weights: "),
                         HasSubstr("the same command with other settings goes on from step 150")));
  EXPECT_EQ(log.find("are in tensors") != std::string::npos, test_device().is_cuda()) << log;
  EXPECT_EQ(newest_whole_step(run), 150);

  // 3. The disk is full when the last checkpoint is due.
  log = train_with(run, [&](int64_t step, const NamedTensors& parameters) {
    spoil_gradient(step, parameters);
    if (step == 295) fill_disk(run, 290);
  });
  full_disk_.reset();
  EXPECT_THAT(log, AllOf(HasSubstr("resumed at step 150\n"), HasSubstr("step 221 was not applied: not finite"),
                         HasSubstr("error: the checkpoint of step 300 could not be saved in"),
                         HasSubstr("make room there and run the same command again: it goes on from step 290")));
  EXPECT_EQ(newest_whole_step(run), 290);

  // 4. The same command again.
  log = train_with(run, {});
  EXPECT_THAT(log, AllOf(HasSubstr("resumed at step 290\n"), HasSubstr("done: 300 steps")));
  EXPECT_TRUE(result_.complete);
  EXPECT_EQ(newest_whole_step(run), 300);
  for (const auto& entry : fs::directory_iterator(fs::path(run.logging.run_dir) / "checkpoints")) {
    EXPECT_TRUE(entry.path().filename().string().starts_with("step-")) << entry.path();
  }

  // The run that only skipped the two steps.
  const RunConfig quiet = config("quiet");
  train_with(quiet, spoil_gradient);
  const auto ends = [](const RunConfig& of) { return load_checkpoint(list_checkpoints(of.logging.run_dir).front()); };
  EXPECT_TRUE(same_tensors(ends(run).model, ends(quiet).model));
  EXPECT_TRUE(same_tensors(ends(run).optimizer, ends(quiet).optimizer));
  EXPECT_EQ(read_timeless_metrics(run.logging.run_dir), read_timeless_metrics(quiet.logging.run_dir));
}

// Libraries that allocate beside torch have no type of error for it: the handle of a backward pass, where torch's
// allocator had taken all of the device.
TEST(OutOfMemory, IsKnownByTheWordsOfLibraries) {
  const auto reason = [](const std::string& text) {
    return out_of_memory_reason(c10::Error({__func__, __FILE__, __LINE__}, text));
  };
  EXPECT_EQ(reason("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`\nmore"),
            "CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`");
  EXPECT_EQ(reason("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), "CUDNN_STATUS_ALLOC_FAILED");
  EXPECT_EQ(reason("CUDA error: out of memory\nCompile with"), "CUDA error: out of memory");
  EXPECT_EQ(reason("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED"), std::nullopt);
  EXPECT_EQ(out_of_memory_reason(std::bad_alloc()), "the host has no more of it");
}

}  // namespace
}  // namespace lighthouse

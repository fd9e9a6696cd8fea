#include "model/part_clock.h"

#include <ATen/Context.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <numeric>
#include <optional>
#include <set>
#include <string>
#include <thread>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

void pause_ms(int64_t milliseconds) { std::this_thread::sleep_for(std::chrono::milliseconds(milliseconds)); }

double seconds_of(const PartSeconds& seconds, Part part) { return seconds.at(static_cast<size_t>(part)); }

TEST(PartClock, GivesEveryMomentToThePartThatWasEnteredLast) {
  enter_part(Part::kMatmul);  // nobody measures
  PartClock clock(at::kCPU);
  for (int step = 0; step < 2; ++step) {  // the second as the first
    const auto begin = std::chrono::steady_clock::now();
    clock.start(Part::kData);
    pause_ms(2);
    enter_part(Part::kAttention);
    pause_ms(5);
    enter_part(Part::kAttention);
    pause_ms(5);
    std::thread([] { enter_part(Part::kMatmul); }).join();  // as autograd's threads do
    pause_ms(3);
    enter_part(Part::kAttention);
    pause_ms(5);
    const PartSeconds seconds = clock.stop();
    const double whole = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
    EXPECT_GE(seconds_of(seconds, Part::kData), 0.002);
    EXPECT_GE(seconds_of(seconds, Part::kAttention), 0.015);
    EXPECT_GE(seconds_of(seconds, Part::kMatmul), 0.003);
    EXPECT_EQ(seconds_of(seconds, Part::kOther), 0);
    EXPECT_EQ(seconds_of(seconds, Part::kOptimizer), 0);
    EXPECT_LE(std::accumulate(seconds.begin(), seconds.end(), 0.0), whole);
    pause_ms(20);
    enter_part(Part::kOther);  // after the step
  }
}

TEST(PartClock, AScopeGivesTimeBackToThePartBefore) {
  PartClock clock(at::kCPU);
  clock.start(Part::kData);
  {
    const PartScope outer(Part::kOther);
    const PartScope inner(Part::kMatmul);
    pause_ms(3);
  }
  pause_ms(5);
  PartSeconds seconds = clock.stop();
  EXPECT_GE(seconds_of(seconds, Part::kMatmul), 0.003);
  EXPECT_GE(seconds_of(seconds, Part::kData), 0.005);
  EXPECT_LT(seconds_of(seconds, Part::kOther), 0.003);

  std::optional<PartScope> outlives(Part::kOther);  // begun without a clock, or with one that has stopped
  clock.start(Part::kData);
  outlives.emplace(Part::kMatmul);
  clock.stop();
  clock.start(Part::kAttention);
  PartClock other(at::kCPU);
  clock.stop();
  other.start(Part::kAttention);
  outlives.reset();
  pause_ms(2);
  EXPECT_EQ(seconds_of(other.stop(), Part::kData), 0);
}

TEST(PartClock, OneRunsAtATime) {
  PartClock first(at::kCPU);
  PartClock second(at::kCPU);
  EXPECT_THROW(first.stop(), InvalidArgument);
  {
    PartClock forgotten(at::kCPU);
    forgotten.start(Part::kOther);
    EXPECT_THROW(first.start(Part::kOther), InvalidArgument);
  }
  first.start(Part::kOther);
  EXPECT_THROW(second.start(Part::kOther), InvalidArgument);
  EXPECT_THROW(second.stop(), InvalidArgument);
  first.stop();
}

TEST(PartClock, NamesAreDifferent) {
  std::set<std::string> names;
  for (size_t part = 0; part < kNumParts; ++part) names.insert(part_name(static_cast<Part>(part)));
  EXPECT_EQ(names.size(), kNumParts);
}

TEST(PartClock, MeasuresTheDeviceNotTheLaunches) {
  if (!at::hasCUDA()) GTEST_SKIP() << "no CUDA device";
  const at::Device device(at::kCUDA, 0);
  const at::Tensor x = at::ones({4096, 4096}, at::TensorOptions().device(device));
  x.matmul(x);
  PartClock clock(device);
  for (int step = 0; step < 2; ++step) {
    clock.start(Part::kOther);
    enter_part(Part::kMatmul);
    for (int i = 0; i < 20; ++i) x.matmul(x);  // 137 GFLOP each, 2.7 TFLOP: more than 1 ms on any device
    enter_part(Part::kOptimizer);
    const PartSeconds seconds = clock.stop();
    EXPECT_GT(seconds_of(seconds, Part::kMatmul), 1e-3);
    EXPECT_LT(seconds_of(seconds, Part::kOptimizer), seconds_of(seconds, Part::kMatmul));
  }
}

}  // namespace
}  // namespace lighthouse

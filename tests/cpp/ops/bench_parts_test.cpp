// The parts of the benchmark: timing, cases, bytes, crossover, and what only a device with graphs and an allocator
// shows.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/attention_report.h"
#include "bench/cases.h"
#include "bench/contestant.h"
#include "bench/device.h"
#include "bench/passes.h"
#include "bench/stage_bytes.h"
#include "lighthouse/check.h"

namespace lighthouse::bench {
namespace {

TEST(BenchMeasure, TakesTurnsAndStopsAtItsLimits) {
  std::string order;
  const std::vector<Timing> timings =
      measure({[&] { order += 'a'; }, [&] { order += 'b'; }}, {.seconds = 1e-9, .min_repeats = 3, .max_repeats = 9});
  EXPECT_EQ(order, "abababababab");  // three warm-up rounds and three
  EXPECT_EQ(timings[0].repeats, 3);
  order.clear();
  EXPECT_EQ(measure([&] { order += 'a'; }, {.seconds = 1e9, .min_repeats = 1, .max_repeats = 4}).repeats, 4);
  EXPECT_EQ(order, "aaaaaaa");
}

TEST(BenchMeasure, RunsSlowFunctionsLessOften) {
  const Stopwatch stopwatch = [](const Function& function) {
    function();
    return 0.0;
  };
  const Stopwatch slow = [](const Function& /*function*/) { return 1001.0; };
  const TimingLimits limits{.seconds = 1};
  EXPECT_EQ(measure([] {}, limits, slow).repeats, limits.slow_repeats);
  EXPECT_EQ(measure([] {}, limits, stopwatch).repeats, limits.max_repeats);  // the time is never up
}

TEST(BenchMeasure, GivesQuartilesAndTimesPerCall) {
  double next = 0;
  const Stopwatch counting = [&](const Function& /*function*/) { return ++next; };
  const Timing timing = measure([] {}, {.seconds = 0, .min_repeats = 5}, counting);  // 4 to 8 after warm-up
  EXPECT_EQ(timing.q1_ms, 5);
  EXPECT_EQ(timing.median_ms, 6);
  EXPECT_EQ(timing.q3_ms, 7);
  EXPECT_EQ(per_call(timing, 2).median_ms, 3);
  EXPECT_EQ(per_call(timing, 2).repeats, 5);
}

TEST(BenchCases, OfTheSuiteAreThePapers) {
  BenchOptions options = default_options("cuda");
  EXPECT_EQ(options.dtype, "bfloat16");
  options.suite = "paper";
  check_options(options);
  std::vector<std::string> names;
  for (const AttentionCase& c : cases_of(options)) {
    std::ostringstream name;
    name << c.seq_len << ' ' << c.score.scorer << ' ' << c.selection.num_levels << ' ' << c.selection.pooling_factor
         << ' ' << c.selection.topk << ' ' << c.gathered_len() << (has_paper_shape(c) ? " paper" : "");
    names.push_back(name.str());
  }
  EXPECT_THAT(names, testing::ElementsAre(
                         "2048 norm 3 4 32 384 paper", "4096 norm 3 4 64 768 paper", "8192 norm 3 4 128 1536 paper",
                         "16384 norm 3 4 256 3072 paper", "32768 norm 3 4 512 6144 paper", "32768 dilated 3 4 512 6144",
                         "65536 norm 3 4 1024 12288 paper", "98304 norm 3 4 1536 18432 paper",
                         "98304 norm 3 2 1536 30720", "98304 dilated 3 4 1536 18432", "98304 gla 3 4 1536 18432",
                         "131072 norm 3 4 2048 24576 paper", "262144 norm 3 4 4096 49152 paper",
                         "524288 norm 3 4 8192 98304 paper", "1048576 norm 4 4 4096 65536"));
}

TEST(BenchCases, OfLengthsAreSorted) {
  BenchOptions options;
  options.seq_lens = {256, 128};
  EXPECT_EQ(cases_of(options).front().seq_len, 128);
  EXPECT_EQ(cases_of(options).back().selection.topk, 4);
}

/// The worked example of docs/algorithm.md with two query heads of four fp32 channels on one KV head: 64 bytes a token.
TEST(BenchStageBytes, CountsTheWorkedExample) {
  const Inputs inputs{at::zeros({1, 32, 2, 4}), at::zeros({1, 32, 1, 4}), at::zeros({1, 32, 1, 4}), {}, {}};
  const at::Tensor selection =
      at::tensor({0, 1, 32, 33, 48, 49, 50, 12, 13, 38, 39, 51, 52, 20, 21, 42, 43, 53, 54, 55}, at::kInt)
          .view({1, 1, 20});
  const StageBytes bytes = stage_bytes(inputs, selection, {.num_levels = 3, .pooling_factor = 2, .topk = 3});
  const int maxima = 24 * 4;
  const int index = 20 * 4;
  const int slots = 56 * 4;
  EXPECT_EQ(bytes.pool_and_score, 32 * 64 + 8 * 64 + 3 * maxima);
  EXPECT_EQ(bytes.pool_scores, 2 * 32 * 4 + 2 * maxima);
  EXPECT_EQ(bytes.select, 3 * maxima + index + slots);
  EXPECT_EQ(bytes.select_by_group, 2 * maxima + index + slots);
  EXPECT_EQ(bytes.gather, 32 * 64 + index + 20 * 64);
  EXPECT_EQ(bytes.gather_with_means, 12 * 64 + 8 * 64 + index + 20 * 64);  // six entries of level 1, two tokens each
  EXPECT_EQ(bytes.scatter, 20 * 32 + slots + 32 * 32);
  EXPECT_EQ(bytes.scatter_backward, 32 * 32 + index + 20 * 32);
  EXPECT_EQ(bytes.gather_backward, 20 * 64 + slots + 32 * 64);
  EXPECT_EQ(bytes.dilated_norms, 2 * 32 * (32 + 8));
  EXPECT_EQ(bytes.gla, 2 * 32 * (64 + 8) + 2 * 32 * 4);
}

CaseResult made_up_result(int64_t seq_len, double dense_ms, double ours_ms) {
  CaseResult result;
  result.attention_case = {seq_len, {.num_levels = 3, .pooling_factor = 4, .topk = seq_len / 64}, {}};
  result.gathered_len = seq_len * 3 / 16;
  result.dense.both = {dense_ms, dense_ms, dense_ms, 20};
  result.lighthouse.both = {ours_ms, ours_ms, ours_ms, 20};
  return result;
}

TEST(BenchCrossover, LiesBetweenTheLengthsWhereTheSignChanges) {
  const auto crossover = [](const std::vector<CaseResult>& results) {
    return crossover_length(results, &Passes::both).value_or(0);
  };
  EXPECT_NEAR(crossover({made_up_result(1024, 1, 2), made_up_result(4096, 8, 4)}), 2048, 1e-6);
  EXPECT_NEAR(crossover({made_up_result(1024, 3, 2), made_up_result(4096, 8, 4)}), 1024, 1e-6);
  EXPECT_EQ(crossover({made_up_result(1024, 1, 2)}), 0);
  EXPECT_EQ(crossover({made_up_result(1024, 3, 2), made_up_result(4096, 3, 4)}), 0);  // it is lost again
  CaseResult other = made_up_result(2048, 1, 9);
  other.attention_case.score.scorer = Scorer::kDilated;
  EXPECT_NEAR(crossover({made_up_result(1024, 1, 2), other, made_up_result(4096, 8, 4)}), 2048, 1e-6);
}

TEST(BenchJson, SaysWhyACaseFailed) {
  CaseResult result = made_up_result(1024, 1, 2);
  result.error = "no memory";
  const BenchOptions options;
  const Machine machine{};
  const auto line = nlohmann::json::parse(json_lines(options, machine, {result}));
  EXPECT_EQ(line.at("what"), "failed");
  EXPECT_EQ(line.at("error"), "no memory");
  std::ostringstream table;
  print_case(result, machine, table);
  EXPECT_THAT(table.str(), testing::HasSubstr("failed: no memory"));
}

/// Records by remembering the calls; its allocator claims 100 bytes more every time that it is asked.
class FakeDevice : public Device {
 public:
  explicit FakeDevice(int64_t cache) : cache_(cache) {}
  at::Device torch_device() const override { return at::kCPU; }
  Stopwatch stopwatch() const override { return time_on_host; }
  int64_t cache_bytes() const override { return cache_; }
  Yardstick yardstick() const override { return {1024, 16, at::kFloat}; }
  GpuNames gpu_names() const override { return {}; }
  std::unique_ptr<Recording> record(const std::vector<Function>& calls) const override {
    return std::make_unique<Calls>(calls);
  }
  std::optional<MemoryInUse> memory() const override { return MemoryInUse{in_use_ += 4000, 100000}; }
  void reset_peak() const override {}
  void release_cache() const override {}

 private:
  struct Calls : Recording {
    explicit Calls(std::vector<Function> all) : calls(std::move(all)) {}
    void replay() override {
      for (const Function& call : calls) call();
    }
    std::vector<Function> calls;
  };

  int64_t cache_;
  mutable int64_t in_use_ = 0;
};

TEST(BenchDevice, RotatesWhatItsCacheWouldHold) {
  EXPECT_EQ(FakeDevice(0).num_copies(1), 1);
  EXPECT_EQ(FakeDevice(100).num_copies(200), 1);
  EXPECT_EQ(FakeDevice(100).num_copies(199), 3);
  EXPECT_EQ(FakeDevice(100).num_copies(10), 22);
  EXPECT_THROW(open_device("gpu"), InvalidArgument);
  EXPECT_EQ(open_device("cpu")->record({}), nullptr);
}

TEST(BenchPasses, CoverGraphsAndMemoryWhereTheDeviceHasThem) {
  BenchOptions options;
  options.head_dim = 8;
  const FakeDevice device(8192);
  Contestant stock = stock_contestant(options, 16, device);
  EXPECT_EQ(stock.sets().size(), 4);  // of 8192 bytes each
  std::vector<Passes> passes = measure_passes({&stock}, device, {.seconds = 1e-9}, /*in_graph=*/true);
  EXPECT_EQ(passes.front().both_in_graph.repeats, 20);
  ASSERT_TRUE(passes.front().memory.has_value());
  EXPECT_EQ(passes.front().memory->kept_bytes, 4000 - 2048);  // the output has 4 heads of 16 rows of 8 floats
  EXPECT_EQ(passes.front().memory->extra_bytes, 100000 - 4000);

  const Machine machine{};
  CaseResult result = made_up_result(1024, 1, 2);
  result.lighthouse = passes.front();
  result.dense = {};
  const std::string lines = json_lines(options, machine, {result});
  EXPECT_THAT(lines, testing::HasSubstr("lighthouse forward+backward in graph"));
  EXPECT_THAT(lines, testing::HasSubstr("\"kept_bytes\":1952"));
}

}  // namespace
}  // namespace lighthouse::bench

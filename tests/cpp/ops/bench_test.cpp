// The benchmark itself: what it checks, prints, writes and refuses.
#include "bench/attention_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "bench/timing.h"
#include "lighthouse/check.h"

namespace lighthouse::bench {
namespace {

BenchOptions tiny_options() {
  BenchOptions options;
  options.seq_lens = {128, 256};
  options.head_dim = 16;
  options.seconds = 0.01;
  options.check = true;
  return options;
}

TEST(AttentionBench, WritesATableAndJsonLines) {
  BenchOptions options = tiny_options();
  options.max_dense_len = 128;
  options.output = testing::TempDir() + "lighthouse_bench_" + std::to_string(getpid()) + ".jsonl";
  std::ostringstream table;
  run_attention_bench(options, table);
  EXPECT_THAT(table.str(), testing::AllOf(testing::HasSubstr("forward+backward"), testing::HasSubstr("128 to 256")));

  std::ifstream file(options.output);
  std::vector<std::string> dense_lengths;
  int64_t num_lines = 0;
  for (std::string line; std::getline(file, line); ++num_lines) {
    const auto json = nlohmann::json::parse(line);
    EXPECT_GT(json.at("median_ms").get<double>(), 0) << line;
    EXPECT_LE(json.at("q1_ms").get<double>(), json.at("q3_ms").get<double>()) << line;
    EXPECT_GE(json.at("repeats").get<int64_t>(), 3) << line;
    EXPECT_EQ(json.at("topk").get<int64_t>(), json.at("seq_len").get<int64_t>() / 64) << line;
    if (json.at("what") == "dense forward") dense_lengths.push_back(json.at("seq_len").dump());
  }
  EXPECT_THAT(dense_lengths, testing::ElementsAre("128"));
  EXPECT_EQ(num_lines, 2 * (2 + 2 + 8) + 2);  // two lengths: ours, stock, eight stages; one of them dense
  std::filesystem::remove(options.output);
}

TEST(AttentionBench, RefusesWhatItCannotRun) {
  const auto expect_refusal = [](auto spoil, const char* message) {
    BenchOptions options = tiny_options();
    spoil(options);
    std::ostringstream table;
    try {
      run_attention_bench(options, table);
      ADD_FAILURE() << "did not throw: " << message;
    } catch (const std::invalid_argument& error) {
      EXPECT_THAT(error.what(), testing::HasSubstr(message));
    }
    EXPECT_EQ(table.str(), "");
  };
  expect_refusal([](BenchOptions& o) { o.device = "gpu"; }, "device is 'gpu'");
  expect_refusal([](BenchOptions& o) { o.dtype = "int8"; }, "dtype is 'int8'");
  expect_refusal([](BenchOptions& o) { o.score.scorer = "gla"; }, "scorer is 'gla'");
  expect_refusal([](BenchOptions& o) { o.seq_lens = {}; }, "at least one");
  expect_refusal([](BenchOptions& o) { o.seq_lens = {63}; }, "length is 63");
  expect_refusal([](BenchOptions& o) { o.num_heads = 3, o.num_kv_heads = 2; }, "num_heads 3");
  expect_refusal([](BenchOptions& o) { o.head_dim = 0; }, "head_dim 0");
  expect_refusal([](BenchOptions& o) { o.seconds = 0; }, "seconds is 0");
  expect_refusal([](BenchOptions& o) { o.selection.pooling_factor = 3; }, "pooling_factor is 3");

  BenchOptions options = tiny_options();
  options.output = "/proc/no/such/folder/file";
  std::ostringstream table;
  EXPECT_THROW(run_attention_bench(options, table), std::system_error);  // before anything is measured
  EXPECT_EQ(table.str(), "");
}

TEST(Measure, TakesTurnsAndStopsAtItsLimits) {
  std::string order;
  const std::vector<Timing> timings =
      measure({[&] { order += 'a'; }, [&] { order += 'b'; }}, {.seconds = 1e-9, .min_repeats = 3, .max_repeats = 9});
  EXPECT_EQ(order, "abababab");  // one warm-up round and three
  EXPECT_EQ(timings[0].repeats, 3);
  order.clear();
  EXPECT_EQ(measure([&] { order += 'a'; }, {.seconds = 1e9, .min_repeats = 1, .max_repeats = 4}).repeats, 4);
  EXPECT_EQ(order, "aaaaa");
}

}  // namespace
}  // namespace lighthouse::bench

// The benchmark itself: what it checks, prints, writes and refuses.
#include "bench/attention_bench.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

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

std::vector<nlohmann::json> run_to_json(BenchOptions options, std::ostream& table) {
  options.output = testing::TempDir() + "lighthouse_bench_" + std::to_string(getpid()) + ".jsonl";
  run_attention_bench(options, table);
  std::vector<nlohmann::json> lines;
  std::ifstream file(options.output);
  for (std::string line; std::getline(file, line);) lines.push_back(nlohmann::json::parse(line));
  std::filesystem::remove(options.output);
  return lines;
}

TEST(AttentionBench, WritesATableAndJsonLines) {
  BenchOptions options = tiny_options();
  options.max_dense_len = 128;
  std::ostringstream table;
  const std::vector<nlohmann::json> lines = run_to_json(options, table);
  EXPECT_THAT(table.str(), testing::AllOf(testing::HasSubstr("forward+backward"), testing::HasSubstr("128 to 256"),
                                          testing::HasSubstr("check passed")));
  std::vector<std::string> dense_lengths;
  int64_t num_timings = 0;
  for (const nlohmann::json& line : lines) {
    EXPECT_EQ(line.at("device"), "cpu");
    EXPECT_GT(line.at("copy_gb_per_s").get<double>(), 0);
    if (line.at("what").get<std::string>().starts_with("crossover")) continue;
    ++num_timings;
    EXPECT_GT(line.at("median_ms").get<double>(), 0) << line;
    EXPECT_LE(line.at("q1_ms").get<double>(), line.at("q3_ms").get<double>()) << line;
    EXPECT_GE(line.at("repeats").get<int64_t>(), 20) << line;
    EXPECT_EQ(line.at("topk").get<int64_t>(), line.at("seq_len").get<int64_t>() / 64) << line;
    EXPECT_EQ(line.at("check"), "passed") << line;
    if (line.at("what") == "dense forward") dense_lengths.push_back(line.at("seq_len").dump());
  }
  EXPECT_THAT(dense_lengths, testing::ElementsAre("128"));
  EXPECT_EQ(num_timings, 2 * (2 + 2 + 8) + 2);  // two lengths: ours, stock, eight stages; one of them dense
}

TEST(AttentionBench, RunsTheOtherScorersInHalfPrecision) {
  for (const Scorer scorer : {Scorer::kDilated, Scorer::kGla}) {
    BenchOptions options = tiny_options();
    options.seq_lens = {200};
    options.num_heads = 4;
    options.num_kv_heads = 2;
    options.score.scorer = scorer;
    options.dtype = "bfloat16";
    std::ostringstream table;
    const std::vector<nlohmann::json> lines = run_to_json(options, table);
    EXPECT_EQ(lines.front().at("scorer"), word(scorer));
    EXPECT_THAT(table.str(), testing::HasSubstr("check passed")) << scorer;
  }
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
  expect_refusal([](BenchOptions& o) { o.score.scorer = Scorer::kRandom; }, "scorer is 'random'");
  expect_refusal([](BenchOptions& o) { o.suite = "mine"; }, "suite is 'mine'");
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

}  // namespace
}  // namespace lighthouse::bench

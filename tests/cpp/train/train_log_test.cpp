// What a run tells: metrics.jsonl, TensorBoard events, the terminal.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <sstream>
#include <system_error>

#include "cpp/io/full_disk.h"
#include "cpp/train/train_support.h"
#include "train/console.h"
#include "train/metrics.h"
#include "train/metrics_lines.h"
#include "train/run_log.h"
#include "train/tensorboard_writer.h"
#include "train/text.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::EndsWith;
using ::testing::HasSubstr;
using ::testing::Not;
using ::testing::StartsWith;

StepRecord record_of(int64_t step) {
  StepRecord record;
  record.step = step;
  record.loss = 2.5;
  return record;
}

std::vector<int64_t> steps_in(const std::filesystem::path& folder) {
  std::vector<int64_t> steps;
  for (const nlohmann::json& line : read_metrics(folder)) steps.push_back(line.at("step").get<int64_t>());
  return steps;
}

TEST(Metrics, RecordHoldsWhatThereIs) {
  StepRecord record = record_of(7);
  record.stage = Stage::kDense;
  EXPECT_EQ(to_json(record).dump(),
            R"({"step":7,"stage":2,"loss":2.5,"learning_rate":0.0,"grad_norm":0.0,"tokens":0,"tokens_per_s":0.0,)"
            R"("time":0.0,"train_seconds":0.0})");
  record.loss = std::nan("");
  record.skipped = "the loss is nan";
  record.validation = ValidationRecord{3.0, 2.0};
  record.spike = "loss 7";
  record.switch_report.emplace().validation_recovered_step = 7;
  const auto json = nlohmann::json::parse(to_json(record).dump());
  EXPECT_TRUE(json.at("loss").is_null());
  EXPECT_EQ(json.at("skipped"), "the loss is nan");
  EXPECT_EQ(json.at("validation_loss"), 3.0);
  EXPECT_EQ(json.at("validation_loss_lighthouse"), 2.0);
  EXPECT_EQ(json.at("switch").at("validation_recovered_step"), 7);
  EXPECT_EQ(json.at("spike"), "loss 7");
}

TEST(Metrics, GoingOnDropsLaterStepsAndBrokenLines) {
  const TemporaryFolder folder;
  {
    MetricsFile metrics(folder / "metrics.jsonl", 0);
    for (int64_t step = 1; step <= 5; ++step) metrics.write(record_of(step));
  }
  const std::string whole = read_bytes(folder / "metrics.jsonl");
  write_bytes(folder / "metrics.jsonl", whole + R"({"step":6,"sta)");  // as a kill or a crash leaves it
  MetricsFile(folder / "metrics.jsonl", 9).write(record_of(10));
  EXPECT_THAT(steps_in(folder.path()), ElementsAre(1, 2, 3, 4, 5, 10));
  MetricsFile(folder / "metrics.jsonl", 3).write(record_of(4));
  EXPECT_THAT(steps_in(folder.path()), ElementsAre(1, 2, 3, 4));
  MetricsFile(folder / "metrics.jsonl", 0).write(record_of(1));
  EXPECT_THAT(steps_in(folder.path()), ElementsAre(1));
  EXPECT_EQ(count_entries(folder.path()), 1);
}

TEST(Metrics, LinesOfOthersGoAndThoseOfStepsStay) {
  const std::string one = R"({"step": 1, "loss": 2})", two = R"({"step": 2})";
  for (const char* other : {"", "[]", "3", "{}", R"({"step": -1})", R"({"step": 1.5})", R"({"step": 3})",
                            "\xEF\xBB\xBF{}", R"({"step": 1, "step": 2})", R"({"step": 9223372036854775808})"}) {
    std::string text = other + ("\n" + one) + "\n" + other + "\n" + two;
    EXPECT_TRUE(keep_lines_up_to(2, text)) << other;
    EXPECT_EQ(text, one + "\n" + two + "\n") << other;
    EXPECT_FALSE(keep_lines_up_to(2, text)) << other;
  }
}

TEST(Metrics, LinesThatDoNotFitTheDiskAreAbsentNotTorn) {
  const TemporaryFolder folder;
  const std::string warnings = run_with_small_files(2000, [&] {
    RunLog log(folder.path(), 0, /*tensorboard=*/false);
    std::string text;
    for (int64_t step = 1; step <= 100; ++step) {
      log.write(record_of(step), [&](const std::string& warning) { text += warning + "|"; });
    }
    return text;
  });
  EXPECT_THAT(warnings, AllOf(HasSubstr("metrics.jsonl"), HasSubstr("training goes on")));
  EXPECT_EQ(std::count(warnings.begin(), warnings.end(), '|'), 1) << "once";
  const std::vector<int64_t> steps = steps_in(folder.path());  // every line reads
  EXPECT_GT(steps.size(), 5);
  EXPECT_LT(steps.size(), 100);
}

TEST(RankLoads, AreOfTheRanksThatStandOut) {
  EXPECT_FALSE(standing_out({{1.0, 5}})) << "alone";
  EXPECT_FALSE(standing_out({{0, 5}, {0, 6}})) << "not measured";
  const RankLoads loads = standing_out({{1.5, 9'000}, {0.25, 7'000}, {1.5, 9'000}}).value();
  EXPECT_EQ(text_of(loads), "fastest rank 1 250.0 ms 7.0kB, slowest rank 0 1.50 s 9.0kB");
  EXPECT_EQ(loads.fullest->rank, 0);
  StepRecord record = record_of(7);
  record.ranks = standing_out({{1, std::nullopt}, {2, std::nullopt}});
  EXPECT_EQ(to_json(record).at("ranks").dump(),
            R"({"fastest":{"rank":0,"seconds":1.0},"slowest":{"rank":1,"seconds":2.0}})");
}

TEST(RankLoads, LeaveTheBarBeforeAnythingElse) {
  Progress progress{3, 10, Stage::kDense, "dense", 2.0, 1000, 60, "fastest rank 1, slowest rank 0"};
  const std::string all = progress_text(progress, 0);
  EXPECT_TRUE(all.ends_with("ETA 1:00 fastest rank 1, slowest rank 0")) << all;
  EXPECT_EQ(progress_text(progress, 200).size(), 200);
  EXPECT_TRUE(progress_text(progress, 200).ends_with(progress.ranks));
  const std::string narrow = progress_text(progress, all.size());
  EXPECT_EQ(narrow.size(), all.size());
  EXPECT_TRUE(narrow.ends_with("ETA 1:00")) << narrow;
}

TEST(TensorBoard, ChecksumIsTheMaskedOneOfTFRecord) {
  // RFC 3720, B.4: the CRC-32C of 32 zero bytes is 8A9136AA; "123456789" has the check value E3069283.
  const auto mask = [](uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xA282EAD8; };
  EXPECT_EQ(masked_crc32c(std::string(32, '\0')), mask(0x8A9136AA));
  EXPECT_EQ(masked_crc32c("123456789"), mask(0xE3069283));
  EXPECT_EQ(masked_crc32c(""), mask(0));
}

TEST(TensorBoard, RecordIsLengthAndDataWithTheirChecksums) {
  const std::string record = tfrecord("abc");
  ASSERT_EQ(record.size(), 8 + 4 + 3 + 4);
  EXPECT_EQ(record.substr(0, 8), std::string("\3\0\0\0\0\0\0\0", 8));
  EXPECT_EQ(record.substr(12, 3), "abc");
}

TEST(Text, NumbersReadWell) {
  EXPECT_EQ(with_unit(0), "0");
  EXPECT_EQ(with_unit(847), "847");
  EXPECT_EQ(with_unit(999.96), "1.0k");
  EXPECT_EQ(with_unit(12345), "12.3k");
  EXPECT_EQ(with_unit(8.03e9), "8.0G");
  EXPECT_EQ(duration(-1), "0:00");
  EXPECT_EQ(duration(59.9), "0:59");
  EXPECT_EQ(duration(754), "12:34");
  EXPECT_EQ(duration(3723), "1:02:03");
  EXPECT_EQ(signed_fixed(0.5, 2), "+0.50");
  EXPECT_EQ(signed_fixed(-0.5, 2), "-0.50");
  EXPECT_EQ(listed(std::vector<std::string>{"a", "b"}, 2), "a, b");
  EXPECT_EQ(listed(std::vector<std::string>{"a", "b", "c", "d"}, 2), "a, b and 2 more");
}

Progress progress_at(int64_t step) { return {step, 400, Stage::kLighthouse, "lighthouse", 2.5, 12345, 83, ""}; }

TEST(Console, BarFillsTheLineAndLeavesWhereItDoesNotFit) {
  EXPECT_EQ(progress_text(progress_at(100), 0), "stage 1 lighthouse 100/400 loss 2.5000 12.3k tokens/s ETA 1:23");
  EXPECT_EQ(progress_text(progress_at(100), 73),
            "stage 1 lighthouse 100/400 [==>     ] loss 2.5000 12.3k tokens/s ETA 1:23");
  EXPECT_EQ(progress_text(progress_at(400), 73),
            "stage 1 lighthouse 400/400 [========] loss 2.5000 12.3k tokens/s ETA 1:23");
  EXPECT_EQ(progress_text(progress_at(100), 68), progress_text(progress_at(100), 0));
}

TEST(Console, NarrowTerminalsGetFewerWords) {
  EXPECT_EQ(progress_text(progress_at(100), 60), "stage 1 lighthouse 100/400 loss 2.5000 ETA 1:23");
  EXPECT_EQ(progress_text(progress_at(100), 39), "100/400 loss 2.5000 ETA 1:23");
  EXPECT_EQ(progress_text(progress_at(100), 20), "100/400 loss 2.5000");
  for (size_t columns = 1; columns < 120; ++columns) {
    EXPECT_LE(progress_text(progress_at(123), columns).size(), columns);
  }
}

TEST(Console, LogGetsLinesAtALowRate) {
  std::ostringstream log;
  Console console(&log);
  for (int64_t step = 1; step <= 400; ++step) console.progress(progress_at(step), 0.1 * static_cast<double>(step));
  const std::string text = log.str();
  EXPECT_THAT(text, Not(HasSubstr("\r")));
  EXPECT_THAT(text, AllOf(StartsWith("stage 1 lighthouse 1/400 "), HasSubstr("\nstage 1 lighthouse 400/400 ")));
  EXPECT_EQ(std::count(text.begin(), text.end(), '\n'), 5);  // 40 seconds: the first, three more, the last
}

TEST(Console, TerminalGetsABarThatMessagesDoNotCut) {
  std::ostringstream log;
  {
    Console console(&log, [] { return size_t{79}; });
    console.progress(progress_at(1), 0);
    console.progress(progress_at(2), 0.01);  // too soon
    console.note("a message");
    console.progress(progress_at(3), 0.02);
  }
  const std::string clear = "\r\033[K";
  EXPECT_EQ(log.str(), clear + progress_text(progress_at(1), 79) + clear + "a message\n" + clear +
                           progress_text(progress_at(3), 79) + "\n");
}

TEST(Console, WhatIsBetweenStepsIsShownAsRarely) {
  std::ostringstream log, bar;
  Console lines(&log);
  Console drawn(&bar, [] { return size_t{9}; });
  for (Console* console : {&lines, &drawn}) {
    console->progress(progress_at(1), 0);
    for (int second = 1; second <= 25; ++second) console->between("reading " + std::to_string(second), second);
  }
  EXPECT_THAT(log.str(), EndsWith(" ETA 1:23\nreading 10\nreading 20\n"));
  const std::string clear = "\r\033[K";
  EXPECT_THAT(bar.str(), AllOf(HasSubstr(clear + "reading 9" + clear + "reading 1" + clear), EndsWith("reading 2")));
}

TEST(Console, WithoutAStreamIsSilent) {
  Console console(nullptr, [] { return size_t{79}; });
  console.note("unheard");
  console.progress(progress_at(1), 0);
}

}  // namespace
}  // namespace lighthouse

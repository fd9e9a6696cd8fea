#include "train/checkpoint.h"

#include <ATen/Parallel.h>
#include <ATen/ops/tensor.h>
#include <ATen/ops/zeros.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <random>
#include <system_error>

#include "cpp/io/full_disk.h"
#include "cpp/train/checkpoint_support.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "support/environment_number.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

// Forked children compute too, and a pool of threads does not survive a fork.
const bool kOneThread = (at::set_num_threads(1), true);

TEST(Checkpoint, RoundTripIsExactInEveryDtype) {
  const TemporaryFolder run;
  Checkpoint saved = example(3);
  for (const at::ScalarType dtype : {at::kDouble, at::kFloat, at::kHalf, at::kBFloat16, at::kLong, at::kInt, at::kShort,
                                     at::kChar, at::kByte, at::kBool}) {
    const std::string name = c10::toString(dtype);
    saved.model.emplace_back(name, counting(1, {4, 3, 2}, dtype));
    saved.model.emplace_back(name + ".scalar", counting(2, {}, dtype));
    saved.model.emplace_back(name + ".empty", counting(0, {2, 0, 3}, dtype));
    saved.model.emplace_back(name + ".transposed", counting(3, {4, 6}, dtype).transpose(0, 1));
    saved.model.emplace_back(name + ".strided", counting(4, {20}, dtype).slice(0, 1, 20, 3));
  }
  saved.model.emplace_back("special", at::tensor({NAN, -NAN, INFINITY, -0.0, 5e-324}, at::kDouble));
  saved.model.emplace_back("with grad", counting(5, {3}, at::kFloat).set_requires_grad(true));
  save_checkpoint(run.path(), saved, 1);
  const Loaded loaded(run.path());
  ASSERT_TRUE(loaded.checkpoint);
  EXPECT_TRUE(same(*loaded.checkpoint, saved));
  EXPECT_THAT(loaded.warnings, IsEmpty());
  for (const auto& [name, tensor] : loaded.checkpoint->model) EXPECT_FALSE(tensor.requires_grad());
}

TEST(Checkpoint, KeepsTheNewest) {
  const TemporaryFolder run;
  for (const int64_t step : {0, 5, 10, 100, 123456789}) save_checkpoint(run.path(), example(step), 2);
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000100", "step-123456789"));
  EXPECT_EQ(Loaded(run.path()).checkpoint->step, 123456789);
  EXPECT_THAT(list_checkpoints(run.path()),
              ElementsAre(run / "checkpoints/step-123456789", run / "checkpoints/step-00000100"));
  EXPECT_TRUE(same(load_checkpoint(run / "checkpoints/step-00000100"), example(100)));
}

// What versions before wrote had no checksum of the manifest, and is else what is written now.
TEST(Checkpoint, OlderOnesAreRead) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(10), 2);
  const fs::path manifest = run / "checkpoints/step-00000010/manifest.json";
  std::string text = read_bytes(manifest);
  EXPECT_THAT(text, HasSubstr("\"version\": 1,"));
  text.erase(text.rfind(",\n \"xxh3_128\""));
  write_bytes(manifest, text + "\n}\n");
  EXPECT_TRUE(same(load_checkpoint(run / "checkpoints/step-00000010"), example(10)));
}

TEST(Checkpoint, DamagedOnesDoNotCountAsKept) {
  const TemporaryFolder run;
  for (const int64_t step : {10, 20, 30}) save_checkpoint(run.path(), example(step), 3);
  fs::remove(run / "checkpoints/step-00000030/manifest.json");
  save_checkpoint(run.path(), example(40), 2);
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000020", "step-00000030", "step-00000040"));
  save_checkpoint(run.path(), example(50), 2);
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000040", "step-00000050"));
}

TEST(Checkpoint, ARunThatWentBackKeepsItsOwn) {
  const TemporaryFolder run;
  for (const int64_t step : {10, 20}) save_checkpoint(run.path(), example(step), 1);
  flip_bit(run / "checkpoints/step-00000020/model.safetensors", 200);
  save_checkpoint(run.path(), example(15), 1);
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000015", "step-00000020"));
  EXPECT_EQ(Loaded(run.path()).checkpoint->step, 15);
}

TEST(Checkpoint, TheSameStepIsReplaced) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(10), 2);
  Checkpoint again = example(11);
  again.step = 10;
  save_checkpoint(run.path(), again, 2);
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000010"));
  EXPECT_TRUE(same(*Loaded(run.path()).checkpoint, again));
}

TEST(Checkpoint, ReplacedOneIsLoadedAfterACrashBetweenTheRenames) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(10), 2);
  fs::rename(run / "checkpoints/step-00000010", run / "checkpoints/step-00000010.replaced");
  const Loaded loaded(run.path());
  EXPECT_TRUE(same(*loaded.checkpoint, example(10)));
  EXPECT_THAT(loaded.warnings, IsEmpty());
  save_checkpoint(run.path(), example(10), 2);
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000010"));
}

// What a reader sees of a run that keeps one checkpoint and saves the next between two of the reader's steps.
TEST(Checkpoint, OneThatGoesWhileItIsReadIsNotDamaged) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(1), 1);
  write_bytes(run / "checkpoints/step-00000002/manifest.json", "{");  // in whose warning the run goes on
  int64_t warnings = 0;
  const auto loaded = load_latest_checkpoint(run.path(), [&](const std::string& text) {
    EXPECT_THAT(text, HasSubstr("step 2 is damaged"));
    ++warnings;
    save_checkpoint(run.path(), example(3), 1);
  });
  ASSERT_TRUE(loaded.has_value());
  EXPECT_TRUE(same(*loaded, example(3)));
  EXPECT_EQ(warnings, 1);
}

TEST(Checkpoint, NoneAtAll) {
  const TemporaryFolder run;
  EXPECT_FALSE(Loaded(run.path()).checkpoint);
  EXPECT_FALSE(Loaded(run / "absent").checkpoint);
  fs::create_directories(run / "checkpoints/step-other");
  write_bytes(run / "checkpoints/step-00000001", "a file");
  fs::create_directories(run / "checkpoints/.lighthouse-tmp-1-1");
  EXPECT_FALSE(Loaded(run.path()).checkpoint);
}

TEST(CheckpointArguments, AreChecked) {
  const TemporaryFolder run;
  const auto error_of = [&](const std::function<void(Checkpoint&)>& change, int64_t keep = 1) {
    Checkpoint checkpoint = example(1);
    change(checkpoint);
    return message_of<InvalidArgument>([&] { save_checkpoint(run.path(), checkpoint, keep); });
  };
  EXPECT_THAT(error_of([](Checkpoint&) {}, 0), HasSubstr("keep 0"));
  EXPECT_THAT(error_of([](Checkpoint& checkpoint) { checkpoint.step = -1; }), HasSubstr("step -1"));
  EXPECT_THAT(error_of([](Checkpoint& checkpoint) { checkpoint.state_json = "{"; }), HasSubstr("not JSON"));
  EXPECT_THAT(error_of([](Checkpoint& checkpoint) { checkpoint.model.push_back(checkpoint.model[0]); }),
              HasSubstr("embed.weight"));
  EXPECT_THAT(error_of([](Checkpoint& checkpoint) { checkpoint.model[0].second = at::Tensor(); }),
              HasSubstr("undefined"));
  EXPECT_THAT(error_of([](Checkpoint& checkpoint) {
                checkpoint.model[0].second = at::zeros({2}, at::TensorOptions().dtype(at::kComplexFloat));
              }),
              HasSubstr("ComplexFloat"));
  EXPECT_EQ(count_entries(run / "checkpoints"), 0U);
}

/// Tries to save step 20 of 4 MB beside a good step 10; what was said, and whether step 10 is alone and whole.
std::string try_to_save(const fs::path& run) {
  Checkpoint large = example(20);
  large.model.emplace_back("large", counting(1, {1'000'000}, at::kFloat));
  std::string said = "saved";
  try {
    save_checkpoint(run, large, 1);
  } catch (const std::system_error& error) {
    said = error.what();
  }
  const bool untouched = names_in(run / "checkpoints") == std::vector<std::string>{"step-00000010"} &&
                         same(*Loaded(run).checkpoint, example(10));
  return said + (untouched ? " (untouched)" : " (changed)");
}

TEST(CheckpointDisk, FileTooLarge) {
  const TemporaryFolder run;
  save_checkpoint(run.path(), example(10), 1);
  EXPECT_THAT(run_with_small_files(1'000'000, [&] { return try_to_save(run.path()); }),
              AllOf(HasSubstr("model.safetensors"), HasSubstr("File too large"), HasSubstr("(untouched)")));
}

TEST(CheckpointDisk, Full) {
  const TemporaryFolder run;
  const std::string result = run_on_small_disk(run.path(), 1'000'000, [&] {
    save_checkpoint(run.path(), example(10), 1);
    return try_to_save(run.path());
  });
  if (result == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(result, AllOf(HasSubstr("model.safetensors"), HasSubstr("No space left"), HasSubstr("(untouched)")));
}

TEST(CheckpointDisk, ReadOnly) {
  const TemporaryFolder run;
  const std::string result = run_on_read_only_disk(
      run.path(), [&] { save_checkpoint(run.path(), example(10), 1); }, [&] { return try_to_save(run.path()); });
  if (result == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(result, AllOf(HasSubstr("checkpoints"), HasSubstr("Read-only"), HasSubstr("(untouched)")));
}

TEST(CheckpointDisk, RunFolderIsAFile) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "x");
  EXPECT_THAT(message_of<std::system_error>([&] { save_checkpoint(folder / "file/run", example(1), 1); }),
              AllOf(HasSubstr("file"), HasSubstr("Not a directory")));
}

/// Saves until it is killed: 5 steps forward, then the last one again, so that replacing is interrupted too.
[[noreturn]] void save_for_ever(const fs::path& run, int64_t step, int64_t payload) {
  for (;; ++step) {
    Checkpoint checkpoint = example(step);
    checkpoint.model.emplace_back("payload", counting(step, {payload}, at::kFloat));
    save_checkpoint(run, checkpoint, 2);
    if (step % 5 == 0) save_checkpoint(run, checkpoint, 2);
  }
}

TEST(CheckpointKill, AtAnyMomentAWholeOneIsLeft) {
  const int kKills = environment_number("LIGHTHOUSE_TEST_KILLS", 20);
  constexpr int64_t kPayload = 50'000;
  const TemporaryFolder run;
  std::mt19937 generator(1);
  int64_t reached = 0;
  save_checkpoint(run.path(), example(0), 2);
  for (int kill_number = 0; kill_number < kKills; ++kill_number) {
    const pid_t child = ::fork();
    if (child == 0) save_for_ever(run.path(), reached + 1, kPayload);
    const auto patience = static_cast<useconds_t>(reached == 0 ? 1 + kill_number : 1);  // for slow disks
    ::usleep(patience * static_cast<useconds_t>(5'000 + generator() % 60'000));
    ASSERT_EQ(::kill(child, SIGKILL), 0);
    ::waitpid(child, nullptr, 0);
    const Loaded loaded(run.path());
    ASSERT_TRUE(loaded.checkpoint);
    EXPECT_THAT(loaded.warnings, IsEmpty()) << "a checkpoint that is visible is whole";
    EXPECT_GE(loaded.checkpoint->step, reached);
    reached = loaded.checkpoint->step;
    Checkpoint expected = example(reached);
    if (reached > 0) expected.model.emplace_back("payload", counting(reached, {kPayload}, at::kFloat));
    EXPECT_TRUE(same(*loaded.checkpoint, expected));
  }
  EXPECT_GT(reached, 0) << "no save ended between two kills";
  save_checkpoint(run.path(), example(reached + 1), 1);
  EXPECT_EQ(count_entries(run / "checkpoints"), 1U) << "what dead processes left is removed";
}

}  // namespace
}  // namespace lighthouse

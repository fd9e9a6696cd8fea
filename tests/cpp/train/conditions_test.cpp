// What the operating system does to a run: signals, file systems that lack an operation, disks too small, files and
// folders that change under it. It reaches the person in words, and no step is lost.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstring>
#include <thread>

#include "cpp/io/full_disk.h"
#include "cpp/train/injected_faults.h"
#include "cpp/train/train_support.h"
#include "io/atomic_folder.h"
#include "io/durable_file.h"
#include "lighthouse/check.h"
#include "train/checkpoint.h"
#include "train/stop_signal.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using namespace faults;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

class Conditions : public ::testing::Test {
 protected:
  ~Conditions() override { faults::clear(); }

  /// Trains with `what` done in every step; returns what the log says, an error as its last line.
  std::string train_with(const RunConfig& config, const std::function<void(int64_t)>& what = {}) {
    std::ostringstream log;
    TrainOptions options;
    options.log = &log;
    if (what) options.on_gradients = [&](int64_t step, const NamedTensors& /*parameters*/) { what(step); };
    try {
      train(config, options);
    } catch (const std::exception& error) {
      log << "ERROR " << error.what();
    }
    return log.str();
  }

  NamedTensors end_of(const RunConfig& config) {
    return load_checkpoint(list_checkpoints(config.logging.run_dir).front()).model;
  }

  TemporaryFolder folder_;
};

// ---- signals --------------------------------------------------------------------------------------------------------

class StoppedBy : public Conditions, public ::testing::WithParamInterface<int> {};

TEST_P(StoppedBy, SavesTheStep) {
  std::signal(GetParam(), SIG_DFL);  // nohup may have run this
  const RunConfig config = tiny_config(folder_);
  const std::string log = train_with(config, [](int64_t step) {
    if (step == 4) std::raise(GetParam());
  });
  EXPECT_THAT(log,
              HasSubstr(std::string("stopped by ") + StopSignals::name(GetParam()) + " after step 5, which is saved"));
  EXPECT_THAT(train_with(config), AllOf(HasSubstr("resumed at step 5\n"), HasSubstr("done: 12 steps")));
}
INSTANTIATE_TEST_SUITE_P(Signals, StoppedBy, ::testing::ValuesIn(kStopSignals),
                         [](const auto& instance) { return StopSignals::name(instance.param); });

TEST_F(Conditions, ASignalIgnoredFromTheStartStaysIgnored) {
  for (const int ignored : {SIGHUP, SIGUSR1}) {
    const std::string log = run_in_child([&] {
      std::signal(ignored, SIG_IGN);
      RunConfig config = tiny_config(folder_);
      config.logging.run_dir += std::to_string(ignored);
      return train_with(config, [&](int64_t step) {
        if (step == 4) std::raise(ignored);
      });
    });
    EXPECT_THAT(log, HasSubstr("done: 12 steps"));
  }
}

// A scheduler's warning, then its SIGTERM; and SIGXCPU, which the kernel sends every second.
TEST_F(Conditions, LaterSignalsOfASchedulerDoNotEndTheRunUnsaved) {
  const std::string log = run_in_child([&] {
    return train_with(tiny_config(folder_), [](int64_t step) {
      if (step != 4) return;
      for (const int number : {SIGXCPU, SIGUSR1}) std::raise(number);
      std::this_thread::sleep_for(std::chrono::milliseconds(1100));
      for (const int number : {SIGXCPU, SIGUSR1, SIGHUP, SIGTERM}) std::raise(number);
    });
  });
  EXPECT_THAT(log, HasSubstr("stopped by SIGXCPU after step 5, which is saved"));
}

// ---- file systems ---------------------------------------------------------------------------------------------------

TEST_F(Conditions, FileSystemWithoutLocksIsAWarning) {
  for (const int error : {ENOSYS, EOPNOTSUPP, ENOLCK}) {
    flock_error = error;
    RunConfig config = tiny_config(folder_);
    config.logging.run_dir += std::to_string(error);
    EXPECT_THAT(train_with(config), AllOf(HasSubstr("has no locks"), HasSubstr("would not be noticed"),
                                          HasSubstr("done: 12 steps"), Not(HasSubstr("ERROR"))));
  }
  flock_error = EIO;
  EXPECT_THAT(train_with(tiny_config(folder_)), AllOf(HasSubstr("ERROR cannot lock"), HasSubstr("Input/output")));
}

TEST_F(Conditions, FileSystemThatCannotSyncOrMoveFolders) {
  for (const int error : {EINVAL, ENOSYS, EOPNOTSUPP}) {
    fsync_error = error;
    RunConfig config = tiny_config(folder_);
    config.logging.run_dir += std::to_string(error);
    EXPECT_THAT(train_with(config), AllOf(HasSubstr("done: 12 steps"), Not(HasSubstr("not saved"))));
  }
  fsync_error = EIO;
  EXPECT_THAT(train_with(tiny_config(folder_)), HasSubstr("cannot sync"));
}

TEST_F(Conditions, OldCheckpointsThatDoNotMoveAreRemovedWhereTheyAre) {
  const TemporaryFolder& old = folder_;
  write_bytes(old / "checkpoint/part", "x");
  rename_error = EXDEV;
  remove_folder(old / "checkpoint");
  EXPECT_EQ(count_entries(old.path()), 0);
}

// Only damage is passed over: a disk or a network that fails, a limit or permissions say nothing of what is there.
TEST_F(Conditions, ACheckpointThatCannotBeReadIsNotDamaged) {
  const RunConfig config = tiny_config(folder_);
  train_with(config);
  const auto expect_no_fall_back = [&](const char* reason) {
    EXPECT_THAT(train_with(config), AllOf(HasSubstr("ERROR cannot "), HasSubstr("step-00000012/"), HasSubstr(reason),
                                          Not(HasSubstr("damaged")), Not(HasSubstr("remove that folder"))));
  };
  for (const int error : {EIO, EACCES, EMFILE, ESTALE}) {
    open_error = error;
    expect_no_fall_back(std::strerror(error));
    open_error = 0;
    pread_error = error;
    expect_no_fall_back(std::strerror(error));
    pread_error = 0;
  }
  EXPECT_THAT(train_with(config), AllOf(HasSubstr("all steps are done"), Not(HasSubstr("ERROR"))));
}

TEST_F(Conditions, WhatFailsOnceACheckpointIsInPlaceDoesNotUnsaveIt) {
  const auto log_with = [&](int& error, int value) {
    RunConfig config = tiny_config(folder_);
    config.checkpoint.keep = 1;
    fs::remove_all(config.logging.run_dir);
    error = value;
    std::string log = train_with(config);
    error = 0;
    const std::vector<fs::path> saved = list_checkpoints(config.logging.run_dir);
    EXPECT_EQ(saved.empty() ? 0 : load_checkpoint(saved.front()).step, 12) << log;
    return log;
  };
  EXPECT_THAT(log_with(sync_folder_error, EIO),
              AllOf(HasSubstr("step 3 is saved, but cannot sync"), HasSubstr("step 12 is saved, but"),
                    HasSubstr("done: 12 steps"), Not(HasSubstr("not saved"))));
  EXPECT_THAT(log_with(aside_error, EACCES),
              AllOf(HasSubstr("step 6 is saved, but cannot remove"), HasSubstr("step-00000003"),
                    HasSubstr("done: 12 steps"), Not(HasSubstr("not saved"))));
  EXPECT_THAT(log_with(aside_error, ENOSPC), Not(HasSubstr("saved, but"))) << "is removed where it is";
}

// ---- memory of the thread that saves --------------------------------------------------------------------------------

TEST_F(Conditions, MemoryThatSavingLacksCostsACheckpointNotTheRun) {
  for (const bool asynchronous : {false, true}) {
    RunConfig config = tiny_config(folder_);
    config.checkpoint.asynchronous = asynchronous;
    config.logging.run_dir += std::to_string(static_cast<int>(asynchronous));
    const std::string log = train_with(config, [](int64_t step) {
      if (step == 2) fsync_error = kNoMemory;
      if (step == 8) fsync_error = 0;
    });
    EXPECT_THAT(log, AllOf(HasSubstr("step 3 is not saved: out of memory"),  //
                           HasSubstr("step 6 is not saved: out of memory"), HasSubstr("done: 12 steps")));
  }
}

TEST_F(Conditions, MemoryThatSavingLacksDoesNotHideWhatEndedTheRun) {
  for (const bool asynchronous : {false, true}) {
    RunConfig config = tiny_config(folder_);
    config.checkpoint.asynchronous = asynchronous;
    config.logging.run_dir += std::to_string(static_cast<int>(asynchronous));
    const std::string log = train_with(config, [](int64_t step) {
      if (step == 2) fsync_error = kNoMemory;
      LIGHTHOUSE_CHECK(step < 4, "a token that is none");
    });
    fsync_error = 0;
    EXPECT_THAT(log, AllOf(HasSubstr("ERROR a token that is none; and the checkpoint of step 4 could not be saved"),
                           HasSubstr("out of memory"), HasSubstr("it goes on from the start")));
  }
}

// ---- disks ----------------------------------------------------------------------------------------------------------

/// Bytes that a checkpoint of the tiny run takes.
size_t checkpoint_bytes() {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  Trainer trainer(config, {});
  NamedTensors model = trainer.decoder().parameters();
  return static_cast<size_t>(total_bytes(model) + total_bytes(trainer.optimizer().state()));
}

TEST_F(Conditions, ADiskForFewerCheckpointsThanKeepKeepsTheLastGoodOnes) {
  RunConfig config = tiny_config(folder_);
  config.checkpoint = {.interval = 2, .keep = 4};
  fs::create_directories(config.logging.run_dir);
  const std::string log = run_on_small_disk(config.logging.run_dir, checkpoint_bytes() * 27 / 10, [&] {
    std::string said = train_with(config);
    for (const fs::path& path : list_checkpoints(config.logging.run_dir))
      said.append("|").append(path.filename().string());
    return said;
  });
  if (log == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(log, AllOf(HasSubstr("checkpoint.keep = 4 needs room for 5"), Not(HasSubstr("not saved")),
                         HasSubstr("done: 12 steps"), HasSubstr("|step-00000012|step-00000010")));
}

TEST_F(Conditions, ADiskForOneCheckpointOnlyIsRefusedAtTheStart) {
  const RunConfig config = tiny_config(folder_);
  fs::create_directories(config.logging.run_dir);
  const size_t bytes = checkpoint_bytes() * 15 / 10;
  const std::string log = run_on_small_disk(config.logging.run_dir, bytes, [&] { return train_with(config); });
  if (log == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(log, AllOf(HasSubstr("ERROR"), HasSubstr("two must fit"), HasSubstr("logging.run_dir")));
  RunConfig once = config;
  once.checkpoint.interval = 0;
  const std::string one = run_on_small_disk(config.logging.run_dir, bytes, [&] { return train_with(once); });
  EXPECT_THAT(one, AllOf(HasSubstr("done: 12 steps"), Not(HasSubstr("ERROR"))));
}

// ---- corpora and run folders that change
// ------------------------------------------------------------------------------

TEST_F(Conditions, ACorpusThatIsCutShortCostsNoStep) {
  const RunConfig config = tiny_config(folder_);
  const std::string text = read_bytes(config.data.path);
  const std::string log = train_with(config, [&](int64_t step) {
    if (step == 4) fs::resize_file(config.data.path, 5000);
  });
  EXPECT_THAT(log, AllOf(HasSubstr("ERROR"), HasSubstr("corpus.txt"), HasSubstr("5000 now"),
                         HasSubstr("the same command goes on from step ")));
  const auto saved = load_checkpoint(list_checkpoints(config.logging.run_dir).front()).step;
  EXPECT_GE(saved, 5);
  EXPECT_THAT(train_with(config),
              AllOf(HasSubstr("ERROR cannot go on"),
                    HasSubstr("\"corpus.txt\" has 5000 bytes instead of " + std::to_string(text.size()))));
  write_bytes(config.data.path, text);
  EXPECT_THAT(train_with(config), HasSubstr("resumed at step " + std::to_string(saved) + "\n"));
  RunConfig unbroken = config;
  unbroken.logging.run_dir = (folder_ / "unbroken").string();
  train_with(unbroken);
  EXPECT_TRUE(same_tensors(end_of(config), end_of(unbroken)));
}

TEST_F(Conditions, ChangedCorpusFilesAreNamed) {
  RunConfig config = tiny_config(folder_);
  fs::create_directories(folder_ / "corpus");
  fs::rename(config.data.path, folder_ / "corpus/a.txt");
  write_bytes(folder_ / "corpus/b.txt", "some text");
  config.data.path = (folder_ / "corpus").string();
  config.logging.run_dir = (folder_ / "corpus/runs/mine").string();
  train_with(config, [](int64_t step) {
    if (step == 4) std::raise(SIGTERM);
  });
  write_bytes(folder_ / "corpus/.hidden", "x");
  fs::rename(folder_ / "corpus/b.txt", folder_ / "corpus/c.txt");
  EXPECT_THAT(train_with(config), AllOf(HasSubstr("\"c.txt\" is new"), HasSubstr("\"b.txt\" is gone")));
  fs::rename(folder_ / "corpus/c.txt", folder_ / "corpus/b.txt");
  EXPECT_THAT(train_with(config), HasSubstr("resumed at step 5\n"));
}

TEST_F(Conditions, RunFolderThatGoesAwayIsAnError) {
  RunConfig config = tiny_config(folder_);
  config.checkpoint.asynchronous = false;  // no other thread writes into what is removed
  const fs::path run = config.logging.run_dir;
  const std::string said =
      std::string("ERROR the run folder '") + run.string() + "' was moved or removed while the run trained in it";
  EXPECT_THAT(train_with(config,
                         [&](int64_t step) {
                           if (step == 4) fs::remove_all(run);
                         }),
              HasSubstr(said));
  EXPECT_FALSE(fs::exists(run)) << "came back in parts";
  EXPECT_THAT(train_with(config,
                         [&](int64_t step) {
                           if (step == 11) fs::rename(run, folder_ / "moved");
                         }),
              HasSubstr(said));
  EXPECT_FALSE(fs::exists(run));
  RunConfig moved = config;
  moved.logging.run_dir = (folder_ / "moved").string();
  EXPECT_THAT(train_with(moved), AllOf(HasSubstr("resumed at step "), HasSubstr("done: 12 steps")));
}

TEST_F(Conditions, ASecondRunIsNoticedWhenTheLockFileIsGone) {
  const RunConfig config = tiny_config(folder_);
  std::string second;
  const std::string first = train_with(config, [&](int64_t step) {
    if (step != 4) return;
    fs::remove(fs::path(config.logging.run_dir) / kLockFile);
    second = run_in_child([&] { return train_with(config); });
  });
  EXPECT_THAT(second, AllOf(HasSubstr("ERROR"), HasSubstr("another process trains in this run folder")));
  EXPECT_THAT(first, HasSubstr("done: 12 steps"));
}

// A folder from somebody else may hold links to files of the user.
TEST_F(Conditions, FilesOfARunAreNotWrittenThroughLinks) {
  const RunConfig config = tiny_config(folder_);
  for (const char* name : {kLockFile, kMetricsFile}) {
    for (const char* target : {"users-own", "absent"}) {
      write_bytes(folder_ / "users-own", R"({"step": 99})");
      fs::remove_all(config.logging.run_dir);
      fs::create_directories(config.logging.run_dir);
      fs::create_symlink(folder_ / target, fs::path(config.logging.run_dir) / name);
      EXPECT_THAT(train_with(config), AllOf(HasSubstr("ERROR"), HasSubstr(std::string(name) + "' is a symbolic link"),
                                            HasSubstr("remove the link")));
      EXPECT_EQ(read_bytes(folder_ / "users-own"), R"({"step": 99})");
      EXPECT_FALSE(fs::exists(folder_ / "absent"));
    }
    fs::remove(fs::path(config.logging.run_dir) / name);
    fs::create_hard_link(folder_ / "users-own", fs::path(config.logging.run_dir) / name);
    const std::string said = train_with(config);  // metrics of steps to come are left out of a copy
    if (std::string(name) == kLockFile) {
      EXPECT_THAT(said, AllOf(HasSubstr("ERROR"), HasSubstr("lock' has another name too")));
    }
    EXPECT_EQ(read_bytes(folder_ / "users-own"), R"({"step": 99})");
  }
}

TEST_F(Conditions, WhatKilledProcessesLeftGoesAtTheNextStart) {
  const RunConfig config = tiny_config(folder_);
  train_with(config);
  const fs::path run = config.logging.run_dir;
  const size_t files = count_entries(run);
  run_in_child([&] {
    const DurableFile half(run / "config.toml");
    const AtomicFolder half_checkpoint(run / "checkpoints/step-00000015");
    fs::copy(run / "checkpoints/step-00000012", run / "checkpoints/step-00000012.replaced");
    fs::rename(run / "checkpoints/step-00000009", run / "checkpoints/step-00000009.replaced");
    ::_exit(0);
    return std::string();
  });
  EXPECT_EQ(count_entries(run), files + 1);
  EXPECT_EQ(count_entries(run / "checkpoints"), 4U);
  EXPECT_THAT(train_with(config), HasSubstr("all steps are done"));  // no step is left, and nothing is saved
  EXPECT_EQ(count_entries(run), files);
  EXPECT_EQ(count_entries(run / "checkpoints"), 2U);
  EXPECT_EQ(load_checkpoint(run / "checkpoints/step-00000009").step, 9);
}

TEST_F(Conditions, RunFolderThatIsEmptiedIsFilledAgain) {
  RunConfig config = tiny_config(folder_);
  config.checkpoint.asynchronous = false;
  EXPECT_THAT(train_with(config,
                         [&](int64_t step) {
                           if (step != 7) return;
                           for (const auto& entry : fs::directory_iterator(config.logging.run_dir))
                             fs::remove_all(entry);
                         }),
              HasSubstr("done: 12 steps"));
  EXPECT_TRUE(fs::exists(fs::path(config.logging.run_dir) / kConfigFile));
  EXPECT_EQ(load_checkpoint(list_checkpoints(config.logging.run_dir).front()).step, 12);
}

}  // namespace
}  // namespace lighthouse

// Checkpoints that several ranks write and read, in threads and forked processes of this program.
#include <ATen/Parallel.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/full.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <chrono>
#include <csignal>
#include <mutex>
#include <new>
#include <random>

#include "cpp/io/full_disk.h"
#include "cpp/train/local_ranks.h"
#include "cpp/train/sorted.h"
#include "cpp/train/train_support.h"
#include "io/errors.h"
#include "io/manifest.h"
#include "lighthouse/check.h"
#include "model/huggingface_config.h"
#include "model/import.h"
#include "parallel/pieces.h"
#include "support/environment_number.h"
#include "train/checkpoint.h"
#include "train/run_saver.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

constexpr std::array<int64_t, 5> kSizes = {1, 2, 3, 4, 8};

NamedTensors weights(int64_t step) {
  NamedTensors tensors;
  const auto add = [&](const std::string& name, at::IntArrayRef shape) {
    const int64_t count = c10::multiply_integers(shape);
    tensors.emplace_back(name, at::arange(step, step + count, at::kFloat).view(shape));
  };
  add("embed.weight", {50, 6});
  add("layers.0.weight", {64, 5});
  add("layers.1.weight", {3, 43});  // 129 elements: two pieces of 64 and one
  add("norm.weight", {7});
  return tensors;
}

/// What AdamW knows of each weight, by the number of the moment.
at::Tensor moment(const at::Tensor& weight, int which) { return weight.mul(which + 2); }

/// All moments, whole.
std::vector<TensorRange> moments(int64_t step) {
  NamedTensors all = {{"step", at::full({}, step, at::kFloat)}};
  for (const auto& [name, weight] : weights(step)) {
    all.emplace_back(name + ".exp_avg", moment(weight, 0));
    all.emplace_back(name + ".exp_avg_sq", moment(weight, 1));
  }
  return whole_ranges(all);
}

/// Those of a rank: of pieces of 64 elements as they are dealt out, and "step" on the first.
std::vector<TensorRange> moments(int64_t step, const CheckpointRanks& ranks) {
  std::vector<int64_t> sizes;
  for (const auto& [name, weight] : weights(step)) sizes.push_back(weight.numel());
  const std::vector<Piece> pieces = pieces_of(sizes, 64);
  const std::vector<int64_t> owners = owners_of(pieces, ranks.size);
  const std::vector<TensorRange> all = moments(step);
  std::vector<TensorRange> own;
  if (ranks.rank == 0) own.push_back(all.front());
  for (size_t i = 0; i < pieces.size(); ++i) {
    if (owners[i] != ranks.rank) continue;
    for (const size_t which : {1, 2}) {
      const TensorRange& whole = all.at(2 * static_cast<size_t>(pieces[i].parameter) + which);
      own.push_back({whole.name, whole.shape, pieces[i].begin, whole.values.slice(0, pieces[i].begin, pieces[i].end)});
    }
  }
  return own;
}

Checkpoint part(int64_t step, const CheckpointRanks& ranks) {
  return {step, weights_of_rank(weights(step), ranks), ranks.size == 1 ? moments(step) : moments(step, ranks),
          R"({"step": )" + std::to_string(step) + "}", "{}"};
}

void save(const fs::path& run, int64_t step, int64_t size, int64_t keep = 2) {
  on_ranks(size,
           [&](const CheckpointRanks& ranks) { EXPECT_EQ(save_checkpoint(run, part(step, ranks), keep, ranks), ""); });
}

template <typename Named>
Named sorted(Named tensors) {
  std::sort(tensors.begin(), tensors.end(), [](const auto& a, const auto& b) { return a.first < b.first; });
  return tensors;
}
std::vector<TensorRange> sorted(std::vector<TensorRange> ranges) {
  std::sort(ranges.begin(), ranges.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return ranges;
}

void expect_whole(const Checkpoint& found, int64_t step) {
  EXPECT_EQ(found.step, step);
  EXPECT_EQ(found.state_json, part(step, {}).state_json);
  EXPECT_TRUE(same_tensors(sorted(found.model), sorted(weights(step))));
  EXPECT_TRUE(same_tensors(sorted(found.optimizer), sorted(moments(step))));
}

/// What each of `size` ranks loads is what it should of `step`; the warnings of the first.
std::vector<std::string> expect_loads(const fs::path& run, int64_t step, int64_t size) {
  std::vector<std::string> warnings;
  on_ranks(size, [&](const CheckpointRanks& ranks) {
    const std::vector<TensorRange> wanted = moments(0, ranks);
    const auto warn = [&](const std::string& text) {
      if (ranks.rank == 0) warnings.push_back(text);
    };
    const NamedTensors places = weights(0);
    const auto found = load_latest_checkpoint(run, warn, ranks, wanted, places);
    ASSERT_TRUE(found.has_value());
    for (const auto& [name, tensor] : found->model) {
      const auto has_name = [&](const auto& place) { return place.first == name; };
      EXPECT_TRUE(std::find_if(places.begin(), places.end(), has_name)->second.is_same(tensor))
          << "it is read to there";
    }
    EXPECT_EQ(found->step, step);
    EXPECT_TRUE(same_tensors(sorted(found->model), sorted(weights(step))));
    EXPECT_TRUE(same_tensors(found->optimizer, moments(step, ranks))) << ranks.rank << " of " << size;
  });
  return warnings;
}

TEST(CheckpointOfRanks, IsReadByAnyNumber) {
  for (const int64_t writers : kSizes) {
    const TemporaryFolder run;
    save(run.path(), 3, writers);
    for (const int64_t readers : kSizes) {
      EXPECT_THAT(expect_loads(run.path(), 3, readers), IsEmpty()) << writers << " -> " << readers;
    }
    expect_whole(load_checkpoint(run / "checkpoints/step-00000003"), 3);
    EXPECT_TRUE(load_checkpoint(run / "checkpoints/step-00000003", CheckpointParts::kModel).optimizer.empty());
  }
}

TEST(CheckpointOfRanks, HasTheFilesOfAModelInShards) {
  const TemporaryFolder run;
  save(run.path(), 3, 1);
  EXPECT_THAT(names_in(run / "checkpoints/step-00000003"),
              ElementsAre("manifest.json", "model.safetensors", "optimizer.safetensors", "state.json"));
  save(run.path(), 4, 2);
  EXPECT_THAT(
      names_in(run / "checkpoints/step-00000004"),
      ElementsAre("config.json", "manifest.json", "model-00001-of-00002.safetensors",
                  "model-00002-of-00002.safetensors", "model.safetensors.index.json",
                  "optimizer-00001-of-00002.safetensors", "optimizer-00002-of-00002.safetensors", "state.json"));
  const auto index = nlohmann::json::parse(read_bytes(run / "checkpoints/step-00000004/model.safetensors.index.json"));
  EXPECT_EQ(index["weight_map"].size(), weights(4).size());
  EXPECT_EQ(index["metadata"]["total_size"], total_bytes(weights(4)));
  const SafetensorsFile shard(run / "checkpoints/step-00000004/model-00002-of-00002.safetensors");
  EXPECT_EQ(shard.metadata().at("format"), "pt");  // without, transformers refuses it
}

TEST(CheckpointOfRanks, IsAModelThatCanBeImported) {
  const TemporaryFolder folder;
  const RunConfig config = tiny_config(folder);
  const auto decoder = [&] { return Decoder::unset(config.model, config.attention, 1, {}); };
  const Decoder saved = decoder();
  draw_parameters(saved.parameters(), 0.1, 1);
  on_ranks(3, [&](const CheckpointRanks& ranks) {
    save_checkpoint(folder.path(),
                    {1, weights_of_rank(saved.parameters(), ranks), moments(1, ranks), "{}",
                     huggingface_config(config.model, "float32", 64).dump()},
                    1, ranks);
  });
  const fs::path checkpoint = folder / "checkpoints/step-00000001";
  EXPECT_EQ(read_huggingface_config(checkpoint).dim, config.model.dim);
  Decoder loaded = decoder();
  load_huggingface_weights(loaded, checkpoint);
  EXPECT_TRUE(same_tensors(loaded.parameters(), saved.parameters()));
}

TEST(CheckpointOfRanks, WeightsAreDealtOutByBytes) {
  const NamedTensors all = weights(1);
  size_t written = 0;
  for (int64_t rank = 0; rank < 2; ++rank) {
    const NamedTensors own = weights_of_rank(all, {rank, 2, {}});
    written += own.size();
    EXPECT_NEAR(static_cast<double>(total_bytes(own)), static_cast<double>(total_bytes(all)) / 2, 4 * 130);
  }
  EXPECT_EQ(written, all.size());
  for (int64_t rank = 0; rank < 8; ++rank) EXPECT_LE(weights_of_rank(all, {rank, 8, {}}).size(), 1U);
}

/// What is thrown by each of `size` ranks.
template <typename Body>
std::vector<std::string> errors_of(int64_t size, const Body& body) {
  std::vector<std::string> errors(static_cast<size_t>(size));
  on_ranks(size, [&](const CheckpointRanks& ranks) {
    try {
      body(ranks);
      errors[static_cast<size_t>(ranks.rank)] = "nothing";
    } catch (const std::exception& error) {
      errors[static_cast<size_t>(ranks.rank)] = error.what();
    }
  });
  return errors;
}

TEST(CheckpointOfRanks, RangesThatAreMissingOrTwiceAreNamed) {
  const TemporaryFolder run;
  save(run.path(), 10, 3);
  const auto errors_with = [&](const std::function<void(Checkpoint&)>& change) {
    return errors_of(3, [&](const CheckpointRanks& ranks) {
      Checkpoint own = part(20, ranks);
      if (ranks.rank == 2) change(own);
      save_checkpoint(run.path(), own, 2, ranks);
    });
  };
  const auto part_of_a_weight = [](Checkpoint& own) {
    return std::find_if(own.optimizer.begin(), own.optimizer.end(),
                        [](const TensorRange& range) { return range.name == "layers.0.weight.exp_avg_sq"; });
  };
  EXPECT_THAT(errors_with([&](Checkpoint& own) { own.optimizer.erase(part_of_a_weight(own)); }),
              Each(AllOf(HasSubstr("\"layers.0.weight.exp_avg_sq\": elements"), HasSubstr("are missing"))));
  EXPECT_THAT(errors_with([&](Checkpoint& own) {
                part_of_a_weight(own)->shape = {5, 64};
              }),
              Each(HasSubstr("several dtypes or shapes")));
  EXPECT_THAT(errors_with([&](Checkpoint& own) {
                own.optimizer.push_back(moments(20, {0, 3, {}}).back());
              }),
              Each(AllOf(HasSubstr("are in \"optimizer-0000"), HasSubstr("and in \"optimizer-0000"))));
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000010"));
}

TEST(CheckpointOfRanks, WeightsThatDoNotFitAreNotWrittenTo) {
  const TemporaryFolder run;
  save(run.path(), 10, 2);
  NamedTensors places = weights(0);
  for (size_t i = 0; i < places.size(); ++i) {
    at::Tensor& place = places[i].second;
    place = i % 2 == 0 ? place.to(at::kDouble) : at::zeros({place.numel() + 1});
    place.fill_(7);
  }
  const auto found = load_latest_checkpoint(
      run.path(), [](const std::string& text) { ADD_FAILURE() << text; }, {}, moments(0, {}), places);
  EXPECT_TRUE(same_tensors(sorted(found->model), sorted(weights(10))));
  for (const auto& [name, place] : places) EXPECT_TRUE(place.eq(7).all().item<bool>()) << name;
}

TEST(CheckpointOfRanks, OtherModelsAreNamed) {
  const TemporaryFolder run;
  save(run.path(), 10, 2);
  const auto error_of = [&](const std::function<void(TensorRange&)>& change) {
    return errors_of(2, [&](const CheckpointRanks& ranks) {
      std::vector<TensorRange> wanted = moments(0, ranks);
      if (ranks.rank == 1) change(wanted.back());
      load_latest_checkpoint(
          run.path(), [](const std::string& text) { ADD_FAILURE() << text; }, ranks, wanted);
    });
  };
  EXPECT_THAT(error_of([](TensorRange& range) { range.name = "other"; }), Each(HasSubstr("no moments \"other\"")));
  EXPECT_THAT(error_of([](TensorRange& range) { range.shape = {1}; }), Each(HasSubstr("the model needs [1]")));
  EXPECT_THAT(error_of([](TensorRange& range) { range.begin = 1000; }), Each(HasSubstr("elements 1000 to")));
}

TEST(CheckpointOfRanks, AnyDamageIsNamedAndAllTakeTheOneBefore) {
  const TemporaryFolder run;
  save(run.path(), 10, 2);
  save(run.path(), 20, 4);
  const fs::path folder = run / "checkpoints/step-00000020";
  for (const std::string& name : names_in(folder)) {
    const std::string good = read_bytes(folder / name);
    for (const size_t place : {size_t{1}, good.size() / 2, good.size() - 1}) {
      std::string bad = good;
      bad[place] = static_cast<char>(bad[place] ^ 4);
      write_bytes(folder / name, bad);
      for (const int64_t readers : {1, 3}) {
        EXPECT_THAT(expect_loads(run.path(), 10, readers), ElementsAre(HasSubstr("step-00000020/" + name))) << place;
      }
    }
    fs::remove(folder / name);
    EXPECT_THAT(expect_loads(run.path(), 10, 2), ElementsAre(HasSubstr("step-00000020/" + name)));
    write_bytes(folder / name, good);
  }
  EXPECT_THAT(expect_loads(run.path(), 20, 4), IsEmpty());
}

TEST(CheckpointOfRanks, WhatFailsOnOneHasFailedOnAll) {
  const TemporaryFolder run;
  save(run.path(), 10, 3);
  const auto errors = errors_of(3, [&](const CheckpointRanks& ranks) {
    save_checkpoint(run.path(), part(20, ranks), 2, ranks, [&] {
      if (ranks.rank == 2) throw std::bad_alloc();
    });
  });
  const char* const of_others = "rank 2: out of memory: the host has no more of it";
  EXPECT_THAT(errors, ElementsAre(of_others, of_others, "std::bad_alloc"));
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000010"));
  EXPECT_THAT(errors_of(2,
                        [&](const CheckpointRanks& ranks) {
                          save_checkpoint(run.path(), part(20 + ranks.rank, ranks), 2, ranks);
                        }),
              Each(HasSubstr("rank 1 saves step 21, rank 0 step 20")));
  save(run.path(), 20, 3);
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000010", "step-00000020"));
}

// A disk that takes its time holds up nobody but the save.
TEST(CheckpointOfRanks, ASlowDiskOfOneIsNoError) {
  const TemporaryFolder run;
  on_ranks(3, [&](const CheckpointRanks& ranks) {
    save_checkpoint(run.path(), part(5, ranks), 2, ranks, [&] {
      if (ranks.rank == 1) std::this_thread::sleep_for(std::chrono::milliseconds(300));
    });
  });
  EXPECT_THAT(expect_loads(run.path(), 5, 2), IsEmpty());
}

/// The checkpoints that are left on a disk for two of four, which four ranks save, each its numbers of a checkpoint;
/// rank 0 begins each `delay` after the others.
std::string saved_on_full_disk(const std::array<int64_t, 4>& sizes, int64_t bytes, std::chrono::milliseconds delay) {
  const TemporaryFolder run;
  return run_on_small_disk(run.path(), static_cast<size_t>(bytes), [&] {
    for (const int64_t step : {1, 2, 3, 4}) {
      std::vector<Checkpoint> parts;  // made here: torch's pool of threads does not survive the fork
      for (int64_t rank = 0; rank < 4; ++rank) {
        parts.push_back(part(step, {rank, 4, {}}));
        const int64_t size = sizes[static_cast<size_t>(rank)];
        parts.back().optimizer.push_back({"of" + std::to_string(rank), {size}, 0, at::full({size}, step, at::kFloat)});
      }
      on_ranks(4, [&](const CheckpointRanks& ranks) {
        save_checkpoint(run.path(), parts[static_cast<size_t>(ranks.rank)], 4, ranks, [&] {
          if (ranks.rank == 0) std::this_thread::sleep_for(delay);
        });
      });
    }
    std::string found;
    for (const std::string& name : names_in(run / "checkpoints")) found += name + " ";
    return found;
  });
}

TEST(CheckpointOfRanks, AFullDiskOfAnyCostsOlderOnes) {
  // 1 MB in all, of which the others expect less.
  const std::string names =
      saved_on_full_disk({10'000, 10'000, 10'000, 220'000}, 2'700'000, std::chrono::milliseconds(0));
  if (names == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_EQ(names, "step-00000003 step-00000004 ");
}

TEST(CheckpointOfRanks, RoomThatIsMadeWhileOneFailsIsTried) {
  // Rank 3 finds the disk full before rank 0 sees what rank 2 left of it, and removes the oldest.
  const std::string names =
      saved_on_full_disk({10'000, 10'000, 60'000, 220'000}, 2'880'000, std::chrono::milliseconds(100));
  if (names == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_EQ(names, "step-00000003 step-00000004 ");
}

// The files of a save that was killed lie where the next save of the same step is written.
TEST(CheckpointOfRanks, LeftoversOfTheSameStepDoNoHarm) {
  const TemporaryFolder run;
  const fs::path left = run / "checkpoints/.lighthouse-tmp-step-00000020";
  write_bytes(left / "optimizer-00008-of-00008.safetensors", "half");
  write_bytes(left / "model-00001-of-00002.safetensors", "half");
  write_bytes(left / ".lighthouse-tmp-1-1", "half");
  on_ranks(2, [&](const CheckpointRanks& ranks) {
    save_checkpoint(run.path(), part(20, ranks), 2, ranks, [&] {
      if (ranks.rank == 0) std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the other is there first
    });
  });
  EXPECT_THAT(names_in(run / "checkpoints"), ElementsAre("step-00000020"));
  EXPECT_EQ(count_entries(run / "checkpoints/step-00000020"), 8U);
  EXPECT_THAT(expect_loads(run.path(), 20, 2), IsEmpty());
}

/// Saves one step after another until it is killed, as one of the ranks.
[[noreturn]] void save_for_ever(const fs::path& run, int64_t step, const CheckpointRanks& ranks) {
  for (;; ++step) {
    save_checkpoint(run, part(step, ranks), 2, ranks);
    if (step % 5 == 0) save_checkpoint(run, part(step, ranks), 2, ranks);  // replaced
  }
}

TEST(CheckpointOfRanks, KilledAtAnyMomentLeaveAWholeOne) {
  constexpr int64_t kRanks = 4;
  const TemporaryFolder run;
  std::mt19937 generator(1);
  int64_t reached = 0;
  save(run.path(), 0, kRanks);
  const int num_kills = environment_number("LIGHTHOUSE_TEST_KILLS", 12);
  for (int round = 0; round < num_kills; ++round) {
    LocalRanks ranks(kRanks);
    std::vector<pid_t> children;
    for (int64_t rank = 0; rank < kRanks; ++rank) {
      children.push_back(::fork());
      if (children.back() == 0) save_for_ever(run.path(), reached + 1, ranks.of(rank));
    }
    // On a busy machine the first save takes its time.
    for (int wait = 0; reached == 0 && wait < 2000 && list_checkpoints(run.path()).size() < 2; ++wait) ::usleep(5'000);
    ::usleep(static_cast<useconds_t>(generator() % 60'000));
    std::shuffle(children.begin(), children.end(), generator);
    for (const pid_t child : children) {
      ASSERT_EQ(::kill(child, SIGKILL), 0);
      ::usleep(static_cast<useconds_t>(generator() % 3'000));  // the others go on for a while
    }
    for (const pid_t child : children) ::waitpid(child, nullptr, 0);
    const auto found = load_latest_checkpoint(run.path(), [](const std::string& text) { ADD_FAILURE() << text; });
    ASSERT_TRUE(found.has_value());
    EXPECT_GE(found->step, reached);
    reached = found->step;
    expect_whole(*found, reached);
  }
  EXPECT_GT(reached, 0) << "no save ended between two kills";
  EXPECT_THAT(expect_loads(run.path(), reached, 3), IsEmpty());
  save(run.path(), reached + 1, 2, 1);
  EXPECT_EQ(count_entries(run / "checkpoints"), 1U) << "what dead processes left is removed";
}

// ---- the saver of a run ---------------------------------------------------------------------------------------------

TEST(SaverOfRanks, WritesTheTensorsOfTheStart) {
  for (const bool asynchronous : {false, true}) {
    const TemporaryFolder run;
    on_ranks(3, [&](const CheckpointRanks& ranks) {
      const NamedTensors model = weights(1);
      const std::vector<TensorRange> own = moments(1, ranks);
      CheckpointSaver saver(run.path(), {.keep = 2, .asynchronous = asynchronous}, model, own, ranks);
      for (const int64_t step : {1, 2}) {
        saver.start(step, "{}");
        saver.finish_copy();
        for (const auto& [name, tensor] : model) tensor.add_(1);  // weights(2)
        if (asynchronous) {                                       // of one tensor, which no other rank looks at
          for (const TensorRange& range : own) range.values.mul_(1);
        }
        EXPECT_EQ(saver.take_end(), "");
      }
    });
    const Checkpoint second = load_checkpoint(run / "checkpoints/step-00000002");
    EXPECT_TRUE(same_tensors(sorted(second.model), sorted(weights(2))));
    EXPECT_TRUE(same_tensors(sorted(second.optimizer), sorted(moments(1))));
  }
}

TEST(SaverOfRanks, SavesARun) {
  const TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  std::array<std::ostringstream, 3> logs;
  const RunFolder own(config.logging.run_dir);
  on_ranks(3, [&](const CheckpointRanks& ranks) {
    const RunFolder shared(config.logging.run_dir, {}, RunFolderUse::kShare);
    Console console(&logs.at(static_cast<size_t>(ranks.rank)), {});
    TrainState state(config.training);
    const RunIdentity identity{config, {}, {}};
    RunSaver saver(shared, config, {weights(3), moments(3, ranks)}, state, identity, console, ranks);
    state.step = 2;
    saver.after_step();  // not due
    state.step = 3;
    saver.after_step();
    saver.finish_copy();
    saver.save_last();  // is saved
    EXPECT_EQ(saver.resume_hint(), "step 3");
  });
  EXPECT_THAT(names_in(folder / "run/checkpoints"), ElementsAre("step-00000003"));
  EXPECT_TRUE(
      same_tensors(sorted(load_checkpoint(folder / "run/checkpoints/step-00000003").model), sorted(weights(3))));
  for (const auto& log : logs) EXPECT_EQ(log.str(), "");
}

TEST(SaverOfRanks, WhatOneCannotDoEndsAll) {
  const TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  const RunFolder own(config.logging.run_dir);
  EXPECT_THAT(errors_of(2,
                        [&](const CheckpointRanks& ranks) {
                          Console console(nullptr, {});
                          TrainState state(config.training);
                          const RunIdentity identity{config, {}, {}};
                          NamedTensors model = weights(3);
                          if (ranks.rank == 1) model.clear();
                          const RunSaver saver(own, config, {model, {}}, state, identity, console, ranks);
                        }),
              Each(HasSubstr("no tensors")));
}

}  // namespace
}  // namespace lighthouse

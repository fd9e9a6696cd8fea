#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <set>
#include <thread>

#include "cpp/data/corpus.h"
#include "data/sequence_loader.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using ::testing::HasSubstr;

/// Inputs and the last target: the N + 1 tokens of a chunk.
std::vector<int64_t> tokens_of(const Sequence& sequence) {
  std::vector<int64_t> tokens = sequence.inputs;
  tokens.push_back(sequence.targets.back());
  return tokens;
}

std::vector<int64_t> bytes_at(const std::string& text, size_t begin, size_t count) {
  std::vector<int64_t> tokens;
  for (size_t place = begin; place < begin + count; ++place)
    tokens.push_back(static_cast<unsigned char>(text.at(place)));
  return tokens;
}

struct Stretch {
  size_t num_bytes;
  int64_t seq_len;
};
class Chunks : public ::testing::TestWithParam<Stretch> {};

TEST_P(Chunks, EveryEpochHasEachOnce) {
  const auto [num_bytes, seq_len] = GetParam();
  const TemporaryFolder folder;
  const std::string text = numbered_text(num_bytes);
  write_bytes(folder / "text", text);
  const SequenceLoader loader(data_config(folder / "text"), seq_len, 256);
  const int64_t count = (static_cast<int64_t>(num_bytes) - 1) / seq_len;
  ASSERT_EQ(loader.sequences_per_epoch(), count);
  EXPECT_EQ(loader.num_training_tokens(), static_cast<int64_t>(num_bytes));
  EXPECT_EQ(loader.num_validation_sequences(), 0);
  std::multiset<std::vector<int64_t>> expected;
  for (int64_t chunk = 0; chunk < count; ++chunk) {
    expected.insert(bytes_at(text, static_cast<size_t>(chunk * seq_len), static_cast<size_t>(seq_len) + 1));
  }
  for (int64_t epoch = 0; epoch < 3; ++epoch) {
    std::multiset<std::vector<int64_t>> found;
    for (int64_t place = 0; place < count; ++place) {
      const Sequence sequence = loader.training_sequence(epoch * count + place);
      ASSERT_EQ(static_cast<int64_t>(sequence.inputs.size()), seq_len);
      ASSERT_EQ(static_cast<int64_t>(sequence.targets.size()), seq_len);
      EXPECT_TRUE(std::equal(sequence.inputs.begin() + 1, sequence.inputs.end(), sequence.targets.begin()));
      EXPECT_TRUE(sequence.cu_seqlens.empty());
      found.insert(tokens_of(sequence));
    }
    EXPECT_EQ(found, expected) << "epoch " << epoch;
  }
}
INSTANTIATE_TEST_SUITE_P(Sizes, Chunks,
                         ::testing::Values(Stretch{2, 1}, Stretch{50, 1}, Stretch{65, 64}, Stretch{128, 64},
                                           Stretch{129, 64}, Stretch{10'000, 64}, Stretch{5000, 1000}));

TEST(ChunkOrder, DiffersByEpochAndSeedAndIsReproducible) {
  const TemporaryFolder folder;
  write_bytes(folder / "text", numbered_text(6401));
  DataConfig config = data_config(folder / "text");
  const SequenceLoader loader(config, 64, 256);
  const SequenceLoader again(config, 64, 256);
  config.seed = 2;
  const SequenceLoader other_seed(config, 64, 256);
  int same_epoch = 0;
  int same_seed = 0;
  for (int64_t index = 0; index < 100; ++index) {
    const auto inputs = loader.training_sequence(index).inputs;
    EXPECT_EQ(inputs, again.training_sequence(index).inputs);
    same_epoch += inputs == loader.training_sequence(index + 100).inputs ? 1 : 0;
    same_seed += inputs == other_seed.training_sequence(index).inputs ? 1 : 0;
  }
  // Matches of a random permutation are Poisson(1): 10 or more with probability 1e-7.
  EXPECT_LT(same_epoch, 10);
  EXPECT_LT(same_seed, 10);
}

TEST(ChunkOrder, FarAheadIsAsNear) {
  const TemporaryFolder folder;
  write_bytes(folder / "text", numbered_text(1000));
  const SequenceLoader loader(data_config(folder / "text"), 10, 256);
  EXPECT_EQ(loader.training_sequence(INT64_MAX).inputs.size(), 10U);
}

class ChunkValidation : public ::testing::TestWithParam<std::tuple<double, int64_t>> {};

// Every 3 bytes of the text are unique, so equal stretches of 3 would show an overlap.
TEST_P(ChunkValidation, SharesNoTokenWithTraining) {
  const auto [fraction, seq_len] = GetParam();
  const TemporaryFolder folder;
  const std::string text = numbered_text(3000);
  write_bytes(folder / "text", text);
  const SequenceLoader loader(data_config(folder / "text", Packing::kChunks, fraction), seq_len, 256);
  const int64_t count = loader.num_validation_sequences();
  const int64_t num_sequences = 2999 / seq_len;
  const auto share = static_cast<int64_t>(fraction * static_cast<double>(num_sequences));
  EXPECT_EQ(count, std::max<int64_t>(share, 1));
  const size_t validation_begin = text.size() - static_cast<size_t>(count * seq_len + 1);
  for (int64_t index = 0; index < count; ++index) {
    EXPECT_EQ(
        tokens_of(loader.validation_sequence(index)),
        bytes_at(text, validation_begin + static_cast<size_t>(index * seq_len), static_cast<size_t>(seq_len) + 1));
  }
  std::set<std::vector<int64_t>> possible;
  const std::string before = text.substr(0, validation_begin);
  for (size_t begin = 0; begin + static_cast<size_t>(seq_len) < before.size(); begin += static_cast<size_t>(seq_len)) {
    possible.insert(bytes_at(before, begin, static_cast<size_t>(seq_len) + 1));
  }
  for (int64_t index = 0; index < loader.sequences_per_epoch(); ++index) {
    EXPECT_TRUE(possible.contains(tokens_of(loader.training_sequence(index))));
  }
  EXPECT_EQ(loader.num_training_tokens(), static_cast<int64_t>(validation_begin));
}
INSTANTIATE_TEST_SUITE_P(Splits, ChunkValidation,
                         ::testing::Combine(::testing::Values(1e-9, 0.02, 0.5, 0.9),
                                            ::testing::Values(1, 7, 100, 1400)));

TEST(ChunkValidationPath, IsACorpusOfItsOwn) {
  const TemporaryFolder folder;
  write_bytes(folder / "train", std::string(101, 'a'));
  write_bytes(folder / "valid", std::string(31, 'b'));
  DataConfig config = data_config(folder / "train", Packing::kChunks, 0.5);
  config.validation_path = folder / "valid";
  const SequenceLoader loader(config, 10, 256);
  EXPECT_EQ(loader.sequences_per_epoch(), 10);
  EXPECT_EQ(loader.num_validation_sequences(), 3);
  EXPECT_EQ(loader.validation_sequence(2).inputs, std::vector<int64_t>(10, 'b'));
  EXPECT_THAT(message_of<InvalidArgument>([&] { loader.validation_sequence(3); }), HasSubstr("[0, 3)"));
  EXPECT_THAT(message_of<InvalidArgument>([&] { loader.training_sequence(-1); }), HasSubstr("-1"));
}

TEST(Fingerprint, TellsCorporaAndConfigurationsApart) {
  const TemporaryFolder folder;
  for (const char* place : {"one/a.txt", "elsewhere/a.txt"}) write_bytes(folder / place, std::string(100, 'a'));
  write_bytes(folder / "renamed/b.txt", std::string(100, 'a'));
  write_bytes(folder / "longer/a.txt", std::string(101, 'a'));
  const auto print = [&](const char* place, auto change, int64_t seq_len = 10) {
    DataConfig config = data_config(folder / place, Packing::kChunks, 0.1);
    change(config);
    return SequenceLoader(config, seq_len, 256).fingerprint();
  };
  const auto nothing = [](DataConfig& /*config*/) {};
  const std::string first = print("one", nothing);
  EXPECT_EQ(first, print("one", nothing));
  EXPECT_EQ(first, print("elsewhere", nothing));
  std::set<std::string> all = {first,
                               print("renamed", nothing),
                               print("longer", nothing),
                               print("one", nothing, 11),
                               print("one", [](DataConfig& config) { config.seed = 2; }),
                               print("one",
                                     [](DataConfig& config) {
                                       config.packing = Packing::kDocuments;
                                       config.validation_fraction = 0;
                                     }),
                               print("one", [](DataConfig& config) { config.validation_fraction = 0; }),
                               print("one", [](DataConfig& config) { config.validation_fraction = 0.2; }),
                               print("one", [&](DataConfig& config) { config.validation_path = folder / "longer"; })};
  EXPECT_EQ(all.size(), 9U);
}

TEST(Fingerprint, OfTheContentTellsBytesApartAndNothingElse) {
  const TemporaryFolder folder;
  constexpr size_t kBytes = 3 << 20;  // more than all samples
  std::string text(kBytes, 'a');
  write_bytes(folder / "one/a.txt", text);
  write_bytes(folder / "elsewhere/a.txt", text);
  text.back() = 'b';
  write_bytes(folder / "end/a.txt", text);
  write_bytes(folder / "other/a.txt", std::string(kBytes, 'c'));
  write_bytes(folder / "small/a.txt", std::string(5000, 'a'));
  write_bytes(folder / "middle/a.txt", std::string(2500, 'a') + 'b' + std::string(2499, 'a'));
  const auto loader = [&](const char* place, int64_t seed = 1, int64_t seq_len = 10) {
    DataConfig config = data_config(folder / place, Packing::kChunks, 0.1);
    config.seed = seed;
    return SequenceLoader(config, seq_len, 256);
  };
  const std::string first = loader("one").content_fingerprint();
  EXPECT_EQ(first, loader("elsewhere").content_fingerprint());
  EXPECT_EQ(first, loader("one", 2, 100).content_fingerprint());
  for (const char* changed : {"end", "other"}) {
    EXPECT_NE(first, loader(changed).content_fingerprint()) << changed;
    EXPECT_EQ(loader("one").fingerprint(), loader(changed).fingerprint()) << changed;
    EXPECT_THAT(difference(loader("one").identity(), loader(changed).identity()), HasSubstr("not the same bytes"));
  }
  EXPECT_NE(loader("small").content_fingerprint(), loader("middle").content_fingerprint())
      << "a small corpus is read whole";
  EXPECT_EQ(difference(loader("one").identity(), loader("elsewhere").identity()), "");
  EXPECT_THAT(difference(loader("one").identity(), loader("small").identity()), HasSubstr("sizes"));
  EXPECT_EQ(difference({loader("one").fingerprint(), ""}, loader("end").identity()), "") << "of an earlier version";
}

// Whatever the length, only what was held out at the length of the split is read.
TEST(ChunkSplit, AtAnotherLengthKeepsToWhatWasHeldOut) {
  const TemporaryFolder folder;
  const std::string text = numbered_text(3000);
  write_bytes(folder / "text", text);
  const DataConfig config = data_config(folder / "text", Packing::kChunks, 0.1);
  const SequenceLoader run(config, 70, 256);
  const auto held_out = static_cast<size_t>(run.num_validation_sequences() * 70 + 1);
  for (const int64_t seq_len : {1, 13, 64, 100, 279, 280}) {
    const SequenceLoader other(config, seq_len, 256, 70);
    EXPECT_EQ(other.num_validation_sequences(), static_cast<int64_t>(held_out - 1) / seq_len);
    EXPECT_EQ(tokens_of(other.validation_sequence(0)),
              bytes_at(text, text.size() - held_out, static_cast<size_t>(seq_len) + 1));
    EXPECT_EQ(other.fingerprint(), run.fingerprint());
    EXPECT_EQ(other.sequences_per_epoch(), run.sequences_per_epoch());
  }
  EXPECT_THAT(message_of<InvalidArgument>([&] { SequenceLoader(config, 281, 256, 70); }), HasSubstr("281 tokens"));
}

TEST(Threads, ReadTheSame) {
  const TemporaryFolder folder;
  for (int number = 0; number < 50; ++number) {
    write_bytes(folder / std::to_string(number), numbered_text(100 + static_cast<size_t>(number)));
  }
  for (const Packing packing : {Packing::kChunks, Packing::kDocuments}) {
    const SequenceLoader loader(data_config(folder.path(), packing), 64, 256);
    const SequenceLoader alone(data_config(folder.path(), packing), 64, 256);
    std::vector<std::vector<int64_t>> found(400);
    std::vector<std::thread> threads;
    for (size_t thread = 0; thread < 4; ++thread) {
      threads.emplace_back([&, thread] {
        for (size_t index = thread; index < found.size(); index += 4) {
          found[index] = loader.training_sequence(static_cast<int64_t>(index)).inputs;
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    for (size_t index = 0; index < found.size(); ++index) {
      EXPECT_EQ(found[index], alone.training_sequence(static_cast<int64_t>(index)).inputs);
    }
  }
}

}  // namespace
}  // namespace lighthouse

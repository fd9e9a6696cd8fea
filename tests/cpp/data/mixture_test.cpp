// data.mixture: shares, order, epochs, splits and what is refused.
#include "data/mixture.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>

#include "cpp/data/corpus.h"
#include "data/sequence_loader.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string refused(const std::function<void()>& body) { return message_of<InvalidArgument>(body); }

TEST(MixtureSchedule, EverySourceHasItsShareOfEveryBeginning) {
  const std::vector<double> weights = {7, 2, 0.5, 0.5, 0.011};
  const MixtureSchedule schedule(weights);
  std::vector<int64_t> counts(weights.size());
  for (int64_t entry = 0; entry < 3 * MixtureSchedule::kPeriod + 17; ++entry) {
    const auto [source, ordinal] = schedule.place(entry);
    EXPECT_EQ(ordinal, counts[source]++) << entry;
    for (size_t each = 0; each < weights.size(); ++each) {
      EXPECT_EQ(schedule.count(each, entry + 1), counts[each]);
      const double wanted = weights[each] / 10.011 * static_cast<double>(entry + 1);
      const int64_t periods = 1 + entry / MixtureSchedule::kPeriod;
      EXPECT_LE(std::abs(static_cast<double>(counts[each]) - wanted), static_cast<double>(2 * periods))
          << entry << " " << each;
    }
  }
}

TEST(MixtureSchedule, RefusesAShareThatAPeriodMayNotHold) {
  EXPECT_THAT(refused([] { MixtureSchedule({1000, 0.5}); }), HasSubstr("a weight of 0.5 among a sum of 1000.5"));
}

TEST(ParseMixture, ReadsAndRefuses) {
  const std::vector<MixturePart> parts = parse_mixture({"a=b=0.25", "c=3"});
  ASSERT_EQ(parts.size(), 2U);
  EXPECT_EQ(parts[0].path, "a=b");
  EXPECT_EQ(parts[0].weight, 0.25);
  for (const char* wrong : {"a", "a=", "=1", "a=0", "a=-1", "a=x", "a=1x", "a=nan", "a=inf"}) {
    EXPECT_THAT(refused([&] { parse_mixture({wrong}); }),
                HasSubstr(detail::concat("'", wrong, "' must be PATH=WEIGHT")));
  }
  EXPECT_THAT(refused([] { parse_mixture({"a=1", "a=2"}); }), HasSubstr("'a' is named twice"));
}

/// Each would be read twice as often as its weight says.
TEST(ParseMixture, KnowsACorpusByItsPlace) {
  const TemporaryFolder folder;
  const std::string here = folder.path().string();
  write_bytes(folder / "train.bin", "");
  write_bytes(folder / "texts/a.txt", "");
  fs::create_directory_symlink(folder / "texts", folder / "link");
  const auto both = [&](const std::string& one, const std::string& other) {
    return refused([&] { parse_mixture({here + one + "=1", here + other + "=2"}); });
  };
  for (const char* other : {"/./train", "/train.bin", "/train.idx", "/texts/../train"}) {
    EXPECT_THAT(both("/train", other), HasSubstr(" is named twice, also as '" + here + "/train'")) << other;
  }
  for (const char* other : {"/texts/", "//texts", "/link"}) {
    EXPECT_THAT(both("/texts", other), HasSubstr(" is named twice")) << other;
  }
  EXPECT_NO_THROW(parse_mixture({here + "/train=1", here + "/texts=1", here + "/train2=1"}));
}

/// Corpora of bytes 'a' + i, each in a file.
class Mixture : public ::testing::Test {
 protected:
  std::string write(char byte, size_t length) const {
    const std::filesystem::path path = folder_ / std::string(1, byte);
    write_bytes(path, std::string(length, byte));
    return path.string();
  }
  DataConfig config(const std::vector<std::string>& mixture, double validation_fraction = 0) const {
    DataConfig config;
    config.mixture = mixture;
    config.validation_fraction = validation_fraction;
    return config;
  }

  TemporaryFolder folder_;
};

TEST_F(Mixture, SequencesComeInTheOrderOfTheScheduleAndEpochsAreCountedByCorpus) {
  const std::string a = write('a', 10 * 16 + 1);
  const std::string b = write('b', 4 * 16 + 1);
  const SequenceLoader loader(config({a + "=3", b + "=1"}), 16, 256);
  const MixtureSchedule schedule({3, 1});
  for (int64_t index = 0; index < 100; ++index) {
    const size_t source = schedule.place(index).source;
    EXPECT_EQ(loader.source_of(index), source);
    EXPECT_EQ(loader.training_sequence(index).inputs, std::vector<int64_t>(16, source == 0 ? 'a' : 'b')) << index;
  }
  EXPECT_EQ(loader.sources(), (std::vector<std::string>{a, b}));
  EXPECT_EQ(loader.epochs(0, 80), 6.0);
  EXPECT_EQ(loader.epochs(1, 80), 5.0);
}

TEST_F(Mixture, GroupsAreOfOneCorpus) {
  const SequenceLoader loader(config({write('a', 500) + "=1", write('b', 500) + "=1"}), 16, 256, 0, /*group=*/4);
  for (int64_t group = 0; group < 20; ++group) {
    std::set<int64_t> tokens;
    for (int64_t i = 0; i < 4; ++i) tokens.insert(loader.training_sequence(4 * group + i).inputs.front());
    EXPECT_EQ(tokens.size(), 1U) << group;
  }
}

TEST_F(Mixture, EachCorpusIsSplitAlone) {
  const SequenceLoader loader(config({write('a', 1601) + "=9", write('b', 1601) + "=1"}, 0.1), 16, 256);
  ASSERT_EQ(loader.num_validation_sequences(), 20);
  EXPECT_EQ(loader.validation_sequence(9).inputs.front(), 'a');
  EXPECT_EQ(loader.validation_sequence(10).inputs.front(), 'b');
}

TEST_F(Mixture, OneCorpusIsReadAsWithoutAMixture) {
  const std::filesystem::path path = folder_ / "text";
  write_bytes(path, numbered_text(1000));
  const SequenceLoader alone(data_config(path), 16, 256);
  const SequenceLoader mixed(config({path.string() + "=0.5"}), 16, 256);
  EXPECT_EQ(mixed.fingerprint(), alone.fingerprint());
  for (int64_t index = 0; index < 200; ++index) {
    EXPECT_EQ(mixed.training_sequence(index).inputs, alone.training_sequence(index).inputs);
  }
}

TEST_F(Mixture, WeightsAreOfTheFingerprint) {
  const std::string a = write('a', 500);
  const std::string b = write('b', 500);
  const auto fingerprint = [&](const std::string& weight) {
    return SequenceLoader(config({a + "=1", b + "=" + weight}), 16, 256).fingerprint();
  };
  EXPECT_EQ(fingerprint("2"), fingerprint("2.0"));
  EXPECT_NE(fingerprint("2"), fingerprint("3"));
}

TEST_F(Mixture, NamesTheCorpusThatIsTooSmall) {
  const std::string small = write('b', 5);
  EXPECT_THAT(refused([&] {
                SequenceLoader(config({write('a', 500) + "=1", small + "=1"}), 16, 256);
              }),
              HasSubstr(small + "' has 5 tokens"));
}

}  // namespace
}  // namespace lighthouse

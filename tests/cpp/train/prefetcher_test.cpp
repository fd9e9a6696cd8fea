#include "train/prefetcher.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <thread>

#include "cpp/train/train_support.h"
#include "lighthouse/check.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {

constexpr int64_t kSeqLen = 64;

DataConfig corpus(const TemporaryFolder& folder, const std::string& text) {
  write_bytes(folder / "corpus.txt", text);
  DataConfig config;
  config.path = (folder / "corpus.txt").string();
  config.validation_fraction = 0;
  return config;
}

/// The batches of a step, made here and now.
void expect_step(const std::vector<Batch>& batches, const SequenceLoader& loader, int64_t first_sequence) {
  ASSERT_EQ(batches.size(), 3);
  for (const Batch& batch : batches) {
    const std::vector<Sequence> sequences = {loader.training_sequence(first_sequence),
                                             loader.training_sequence(first_sequence + 1)};
    const Batch expected = make_batch(sequences, test_device());
    EXPECT_TRUE(same_bits(batch.tokens, expected.tokens)) << first_sequence;
    EXPECT_TRUE(same_bits(batch.targets, expected.targets)) << first_sequence;
    EXPECT_EQ(batch.num_targets, expected.num_targets);
    EXPECT_EQ(batch.tokens.device(), test_device());
    first_sequence += 2;
  }
}

TEST(BatchPrefetcher, GivesTheStepThatIsAskedFor) {
  const TemporaryFolder folder;
  const SequenceLoader loader(corpus(folder, tiny_corpus()), kSeqLen, 256);
  BatchPrefetcher prefetcher(loader, 2, 3, test_device());
  for (const int64_t first : {0, 6, 12, 18, 24, 600, 606, 6, 6, 12, 0}) {  // in order, later epochs, back, twice
    expect_step(prefetcher.take(first), loader, first);
    if (first == 18) std::this_thread::sleep_for(std::chrono::milliseconds(20));  // all is ready
  }
}

TEST(BatchPrefetcher, GivesEveryOtherBatch) {
  const TemporaryFolder folder;
  const SequenceLoader loader(corpus(folder, tiny_corpus()), kSeqLen, 256);
  BatchPrefetcher all(loader, 2, 5, test_device());
  for (const int64_t first : {0, 1}) {
    BatchPrefetcher some(loader, 2, 5, test_device(), first, 2);
    for (const int64_t sequence : {0, 10, 20}) {
      const std::vector<Batch> batches = some.take(sequence), of_all = all.take(sequence);
      ASSERT_EQ(batches.size(), first == 0 ? 3 : 2);
      for (size_t i = 0; i < batches.size(); ++i) {
        EXPECT_TRUE(same_bits(batches[i].tokens, of_all[2 * i + static_cast<size_t>(first)].tokens));
      }
    }
  }
}

TEST(BatchPrefetcher, EndsWithoutHavingBegunAndInTheMiddle) {
  const TemporaryFolder folder;
  const SequenceLoader loader(corpus(folder, tiny_corpus()), kSeqLen, 256);
  const BatchPrefetcher never(loader, 2, 3, test_device());
  for (int i = 0; i < 20; ++i) {
    BatchPrefetcher prefetcher(loader, 2, 3, test_device());
    prefetcher.take(0);
  }
}

TEST(BatchPrefetcher, AnErrorComesInTheStepThatNeedsTheData) {
  const TemporaryFolder folder;
  std::string text = tiny_corpus();
  text[20000] = 'z';  // the only one
  const SequenceLoader loader(corpus(folder, text), kSeqLen, 'z');
  const auto error_of = [](const std::function<void()>& body) { return message_of<InvalidArgument>(body); };
  int64_t bad = 0;
  const auto is_good = [&](int64_t index) {
    try {
      loader.training_sequence(index);
    } catch (const InvalidArgument&) {
      return false;
    }
    return true;
  };
  while (is_good(bad)) ++bad;
  const int64_t bad_step = bad / 6 * 6;
  BatchPrefetcher prefetcher(loader, 2, 3, test_device());
  for (int64_t first = 0; first < bad_step; first += 6) expect_step(prefetcher.take(first), loader, first);
  const std::string message = error_of([&] { loader.training_sequence(bad); });
  EXPECT_EQ(error_of([&] { prefetcher.take(bad_step); }), message);
  EXPECT_EQ(error_of([&] { prefetcher.take(bad_step); }), message) << "again";
  expect_step(prefetcher.take(bad_step + 6), loader, bad_step + 6);
}

}  // namespace
}  // namespace lighthouse

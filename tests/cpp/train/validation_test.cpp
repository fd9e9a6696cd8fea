#include "eval/validation.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "cpp/train/train_support.h"
#include "eval/batch.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Fixture {
  TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  SequenceLoader loader{config.data, config.training.seq_len, config.model.vocab_size};
  Decoder decoder{config.model, config.attention, 1};
};

TEST(Batch, HoldsInputsTargetsAndHowManyCount) {
  const std::vector<Sequence> sequences = {{{1, 2, 3}, {2, 3, 4}, {}}, {{5, 6, 7}, {6, kIgnoredTarget, 8}, {}}};
  const Batch batch = make_batch(sequences, at::kCPU);
  EXPECT_EQ(batch.tokens.sizes(), at::IntArrayRef({2, 3}));
  EXPECT_EQ(batch.tokens[1][2].item<int64_t>(), 7);
  EXPECT_EQ(batch.targets[0][2].item<int64_t>(), 4);
  EXPECT_EQ(batch.targets[1][1].item<int64_t>(), kIgnoredTarget);
  EXPECT_EQ(batch.num_targets, 5);
  EXPECT_THAT(batch.cu_seqlens, ElementsAre());
}

TEST(Batch, DocumentsComeOneSequenceAtATime) {
  const Sequence packed{{1, 2, 3}, {2, kIgnoredTarget, 4}, {0, 2, 3}};
  EXPECT_THAT(make_batch({&packed, 1}, at::kCPU).cu_seqlens, ElementsAre(0, 2, 3));
  const std::vector<Sequence> two = {packed, packed};
  EXPECT_THAT(message_of<InvalidArgument>([&] { make_batch(two, at::kCPU); }), HasSubstr("packed documents"));
  EXPECT_THROW(make_batch({}, at::kCPU), InvalidArgument);
  const std::vector<Sequence> uneven = {{{1}, {2}, {}}, {{1, 2}, {2, 3}, {}}};
  EXPECT_THROW(make_batch(uneven, at::kCPU), InvalidArgument);
}

TEST(Validation, IsTheMeanOverTheTargetsOfTheFirstSequences) {
  const Fixture run;
  for (const AttentionMode mode : {AttentionMode::kDense, AttentionMode::kLighthouse}) {
    double sum = 0;
    for (int64_t index = 0; index < 3; ++index) {
      const Sequence sequence = run.loader.validation_sequence(index);
      const Batch batch = make_batch({&sequence, 1}, at::kCPU);
      sum += run.decoder.loss(batch.tokens, batch.targets, mode).item<double>();
    }
    const ValidationLoss result = validation_loss(run.decoder, run.loader, 3, mode);
    EXPECT_NEAR(result.loss, sum / 3, 8 * 6 * std::numeric_limits<double>::epsilon());  // a few operations in fp64
    EXPECT_EQ(result.num_sequences, 3);
    EXPECT_EQ(result.num_targets, 3 * 64);
  }
}

TEST(Validation, DiffersBetweenTheAttentionModes) {
  const Fixture run;
  EXPECT_NE(validation_loss(run.decoder, run.loader, 3, AttentionMode::kDense).loss,
            validation_loss(run.decoder, run.loader, 3, AttentionMode::kLighthouse).loss);
}

TEST(Validation, ReadsNoMoreThanThereIs) {
  const Fixture run;
  const int64_t available = run.loader.num_validation_sequences();
  EXPECT_EQ(validation_loss(run.decoder, run.loader, 1000000, AttentionMode::kDense).num_sequences, available);
}

TEST(Validation, WeighsDocumentsByTheirTargets) {
  Fixture run;
  for (int64_t file = 0; file < 40; ++file) {
    write_bytes(run.folder / "documents" / (std::to_string(file) + ".txt"), tiny_corpus(20 + file));
  }
  run.config.data.path = (run.folder / "documents").string();
  run.config.data.packing = "documents";
  run.config.data.validation_fraction = 0.3;
  const SequenceLoader loader(run.config.data, 64, 256);
  double sum = 0;
  int64_t num_targets = 0;
  for (int64_t index = 0; index < 4; ++index) {
    const Sequence sequence = loader.validation_sequence(index);
    const Batch batch = make_batch({&sequence, 1}, at::kCPU);
    sum += run.decoder.loss(batch.tokens, batch.targets, AttentionMode::kDense, batch.cu_seqlens).item<double>() *
           static_cast<double>(batch.num_targets);
    num_targets += batch.num_targets;
  }
  EXPECT_LT(num_targets, 4 * 64) << "some targets belong to another document";
  const ValidationLoss result = validation_loss(run.decoder, loader, 4, AttentionMode::kDense);
  EXPECT_EQ(result.num_targets, num_targets);
  EXPECT_NEAR(result.loss, sum / static_cast<double>(num_targets), 8 * 6 * std::numeric_limits<double>::epsilon());
}

TEST(Validation, WithoutSequencesIsRefused) {
  Fixture run;
  EXPECT_THROW(validation_loss(run.decoder, run.loader, 0, AttentionMode::kDense), InvalidArgument);
  run.config.data.validation_fraction = 0;
  const SequenceLoader loader(run.config.data, 64, 256);
  EXPECT_THAT(message_of<InvalidArgument>([&] { validation_loss(run.decoder, loader, 1, AttentionMode::kDense); }),
              HasSubstr("data.validation_fraction"));
}

}  // namespace
}  // namespace lighthouse

#include "eval/validation.h"

#include <ATen/core/grad_mode.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <limits>

#include "cpp/train/train_support.h"
#include "eval/sample.h"
#include "lighthouse/check.h"
#include "model/batch.h"

namespace lighthouse {
namespace {
using ::testing::HasSubstr;

constexpr double kLossRounding = std::numeric_limits<float>::epsilon();  // of Decoder::loss; the sums are in fp64

struct Validated {
  TemporaryFolder folder;
  RunConfig config = tiny_config(folder);
  SequenceLoader loader{config.data, config.training.seq_len, config.model.vocab_size};
  Decoder decoder{config.model, config.attention, 1};
};

TEST(Validation, IsTheMeanOverTheTargetsOfTheSample) {
  const Validated run;
  for (const AttentionMode mode : {AttentionMode::kDense, AttentionMode::kLighthouse}) {
    double sum = 0;
    for (const int64_t index : validation_sample(run.loader, 3, kSampleSeed)) {
      const Sequence sequence = run.loader.validation_sequence(index);
      const Batch batch = make_batch({&sequence, 1}, at::kCPU);
      sum += run.decoder.loss(batch.tokens, batch.targets, mode).item<double>();
    }
    const ValidationLoss result = validation_loss(run.decoder, run.loader, 3, mode);
    EXPECT_NEAR(result.loss, sum / 3, sum / 3 * kLossRounding);
    EXPECT_EQ(result.num_sequences, 3);
    EXPECT_EQ(result.num_targets, 3 * 64);
  }
}

TEST(Validation, DiffersBetweenTheAttentionModes) {
  const Validated run;
  EXPECT_NE(validation_loss(run.decoder, run.loader, 3, AttentionMode::kDense).loss,
            validation_loss(run.decoder, run.loader, 3, AttentionMode::kLighthouse).loss);
}

TEST(Validation, ReadsNoMoreThanThereIs) {
  const Validated run;
  const int64_t available = run.loader.num_validation_sequences();
  EXPECT_EQ(validation_loss(run.decoder, run.loader, 1000000, AttentionMode::kDense).num_sequences, available);
}

TEST(Validation, WeighsDocumentsByTheirTargets) {
  Validated run;
  for (int64_t file = 0; file < 40; ++file) {
    write_bytes(run.folder / "documents" / (std::to_string(file) + ".txt"), tiny_corpus(20 + file));
  }
  run.config.data.path = (run.folder / "documents").string();
  run.config.data.packing = Packing::kDocuments;
  run.config.data.validation_fraction = 0.3;
  const SequenceLoader loader(run.config.data, 64, 256);
  double sum = 0;
  int64_t num_targets = 0;
  for (const int64_t index : validation_sample(loader, 4, kSampleSeed)) {
    const Sequence sequence = loader.validation_sequence(index);
    const Batch batch = make_batch({&sequence, 1}, at::kCPU);
    sum += run.decoder.loss(batch.tokens, batch.targets, AttentionMode::kDense, batch.cu_seqlens).item<double>() *
           static_cast<double>(batch.num_targets);
    num_targets += batch.num_targets;
  }
  EXPECT_LT(num_targets, 4 * 64) << "some targets belong to another document";
  const ValidationLoss result = validation_loss(run.decoder, loader, 4, AttentionMode::kDense);
  EXPECT_EQ(result.num_targets, num_targets);
  EXPECT_NEAR(result.loss, sum / static_cast<double>(num_targets), result.loss * kLossRounding);
}

TEST(Validation, WithoutSequencesIsRefused) {
  Validated run;
  EXPECT_THROW(validation_loss(run.decoder, run.loader, 0, AttentionMode::kDense), InvalidArgument);
  run.config.data.validation_fraction = 0;
  const SequenceLoader loader(run.config.data, 64, 256);
  EXPECT_THAT(message_of<InvalidArgument>([&] { validation_loss(run.decoder, loader, 1, AttentionMode::kDense); }),
              HasSubstr("data.validation_fraction"));
}

}  // namespace
}  // namespace lighthouse

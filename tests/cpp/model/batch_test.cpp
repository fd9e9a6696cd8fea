#include "model/batch.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/io/temporary_folder.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using ::testing::ElementsAre;
using ::testing::HasSubstr;

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

TEST(Batch, SharesAreOfTheirTokens) {
  const std::vector<Sequence> sequences = {{{1, 2, 3}, {2, 3, 4}, {}}, {{5, 6, 7}, {kIgnoredTarget, 7, 8}, {}}};
  const Batch whole = make_host_batch(sequences);
  const Batch first = share_of(whole, {{0, 1}, {1, 3}}, 0), second = share_of(whole, {{0, 1}, {1, 3}}, 1);
  EXPECT_EQ(first.num_targets, 1);
  EXPECT_EQ(second.num_targets, 4);
  EXPECT_EQ(second.tokens.sizes(), at::IntArrayRef({2, 2}));
  EXPECT_TRUE(second.tokens.is_contiguous());
  EXPECT_EQ(second.tokens[1][0].item<int64_t>(), 6);
  EXPECT_EQ(second.targets[1][1].item<int64_t>(), 8);
  ASSERT_EQ(to_device(second, at::kCPU).spans.size(), 2);
  EXPECT_EQ(second.spans[1].begin, 1);
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

}  // namespace
}  // namespace lighthouse

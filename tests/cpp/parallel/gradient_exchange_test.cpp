// Sums of gradients over ranks have the bits of one process, whatever the number of ranks.
#include "parallel/gradient_exchange.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/ops/randn.h>
#include <ATen/ops/zeros_like.h>
#include <gmock/gmock.h>

#include <bit>
#include <csignal>
#include <numeric>
#include <thread>

#include "cpp/parallel/ranks.h"
#include "lighthouse/check.h"
#include "parallel/traffic.h"
#include "parallel/tree_schedule.h"
#include "parallel/tree_sum.h"
#include "parallel/watch.h"
#include "support/test_device.h"

namespace lighthouse {
namespace {

using parallel_test::run_ranks;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

at::Tensor term(int64_t index, const std::vector<int64_t>& shape) {
  return at::randn(shape, at::make_generator<at::CPUGeneratorImpl>(static_cast<uint64_t>(index)), at::kFloat);
}

std::vector<at::Tensor> terms(int64_t first, int64_t stride, int64_t end, const std::vector<int64_t>& shape) {
  std::vector<at::Tensor> result;
  for (int64_t i = first; i < end; i += stride) result.push_back(term(i, shape));
  return result;
}

TEST(TreeSum, IsTheSameHoweverTermsAreDealtOut) {
  for (const int64_t count : {1, 2, 3, 5, 8, 13, 32}) {
    const at::Tensor whole = tree_sum(terms(0, 1, count, {257}));
    at::Tensor one_by_one = term(0, {257});
    for (int64_t i = 1; i < count; ++i) one_by_one.add_(term(i, {257}));
    EXPECT_TRUE(whole.allclose(one_by_one, 1e-5, 1e-5)) << count;
    EXPECT_EQ(whole.equal(one_by_one), count <= 2) << "for two terms there is one order only";
    for (const int64_t ranks : {2, 4, 8}) {
      if (ranks > count) continue;
      std::vector<at::Tensor> sums;
      for (int64_t rank = 0; rank < ranks; ++rank) sums.push_back(tree_sum(terms(rank, ranks, count, {257})));
      EXPECT_TRUE(whole.equal(tree_sum(sums))) << count << " terms, " << ranks << " ranks";
    }
  }
  EXPECT_THROW(tree_sum({}), InvalidArgument);
}

TEST(TreeSum, IsThatOfTermsThatComeOneAfterAnother) {
  for (int64_t count = 1; count <= 33; ++count) {
    std::vector<at::Tensor> sums;
    size_t most = 0;
    const std::vector<TreeStep> steps = tree_schedule(count);
    std::vector<int64_t> held;
    for (const TreeStep& step : steps) {
      held.push_back(static_cast<int64_t>(sums.size()));
      sums.push_back(term(step.term, {65}));
      most = std::max(most, sums.size());
      for (int64_t i = 0; i < step.merges; ++i) {
        const at::Tensor odds = sums.back();
        sums.pop_back();
        sums.back().add_(odds);
      }
    }
    ASSERT_EQ(sums.size(), 1U) << count;
    EXPECT_TRUE(sums.front().equal(tree_sum(terms(0, 1, count, {65})))) << count;
    EXPECT_LE(most, std::bit_width(static_cast<uint64_t>(count - 1)) + 1) << count;
    EXPECT_EQ(held_sums(steps), held) << count;
  }
}

TEST(Pieces, CoverAllElementsOnceForAnyNumberOfRanks) {
  const std::vector<int64_t> sizes = {100, 7, 0, 64, 1};
  const std::vector<Piece> pieces = pieces_of(sizes, 64);
  std::vector<int64_t> flat;
  for (const Piece& piece : pieces) flat.insert(flat.end(), {piece.parameter, piece.begin, piece.end});
  EXPECT_THAT(flat, ElementsAre(0, 0, 64, 0, 64, 100, 1, 0, 7, 3, 0, 64, 4, 0, 1));
  EXPECT_THAT(owners_of(pieces, 1), ElementsAre(0, 0, 0, 0, 0));
  EXPECT_THAT(owners_of(pieces, 2), ElementsAre(0, 0, 1, 1, 1));
  EXPECT_THAT(owners_of(pieces, 8), ElementsAre(0, 2, 3, 1, 4));
  EXPECT_THROW(owners_of(pieces, 0), InvalidArgument);
  EXPECT_THROW(pieces_of(sizes, 0), InvalidArgument);
}

TEST(Pieces, OfALargeModelAreBalanced) {
  std::vector<int64_t> sizes = {128256 * 4096, 4096, 128256 * 4096};
  for (int layer = 0; layer < 32; ++layer) {
    for (const int64_t size : {4096 * 6144, 4096 * 4096, 4096 * 28672, 14336 * 4096, 4096, 4096}) sizes.push_back(size);
  }
  const std::vector<Piece> pieces = pieces_of(sizes);
  const int64_t total = std::accumulate(sizes.begin(), sizes.end(), int64_t{0});
  for (const int64_t ranks : {2, 8, 64}) {
    std::vector<int64_t> elements(static_cast<size_t>(ranks), 0);
    const std::vector<int64_t> owners = owners_of(pieces, ranks);
    for (size_t i = 0; i < pieces.size(); ++i) elements[static_cast<size_t>(owners[i])] += pieces[i].size();
    EXPECT_LE(*std::max_element(elements.begin(), elements.end()),
              1.1 * static_cast<double>(total) / static_cast<double>(ranks))
        << ranks;
  }
}

TEST(Pieces, AreExchangedInEqualStretchesOfEveryRank) {
  const std::vector<int64_t> sizes = {100, 7, 0, 64, 1};
  const std::vector<Piece> pieces = pieces_of(sizes, 64);
  const std::vector<int64_t> owners = owners_of(pieces, 2);
  EXPECT_THAT(owned_elements(pieces, owners, 2), ElementsAre(100, 72));
  std::vector<std::string> texts;
  for (const auto& stretch : stretches_of(pieces, owners, 2, 70)) {
    std::string& text = texts.emplace_back();
    for (const auto& of_rank : stretch) {
      for (const Piece& piece : of_rank) {
        text += std::to_string(piece.parameter) + "[" + std::to_string(piece.begin) + ":" + std::to_string(piece.end) +
                "] ";
      }
      text += "| ";
    }
  }
  EXPECT_THAT(texts, ElementsAre("0[0:64] 0[64:70] | 1[0:7] 3[0:63] | ", "0[70:100] | 3[63:64] 4[0:1] | "));
  EXPECT_THROW(stretches_of(pieces, owners, 2, 0), InvalidArgument);
}

/// What a rank says it has sent, and what is predicted.
std::string sent_and_predicted(World& world) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("data", ranks);
  std::vector<at::Tensor> parameters;
  for (const std::vector<int64_t>& shape : {std::vector<int64_t>{3, 50}, {7}, {1000}, {129}}) {
    parameters.push_back(term(1, shape).to(test_device()));
  }
  const GradientExchange between(parameters, *group, /*piece_elements=*/64, /*bucket_elements=*/200);
  between.reduce(parameters);
  between.spread(parameters);
  const std::vector<int64_t> owned = owned_elements(between.pieces(), between.owners(), world.size());
  const TrafficByName predicted = gradient_traffic(owned, stretch_elements(200, world.size()), world.rank());
  for (const auto& [name, traffic] : predicted) {
    const Traffic& sent = group->sent().at(name);
    if (sent != traffic) return name + ": " + std::to_string(sent.bytes) + ", not " + std::to_string(traffic.bytes);
  }
  return group->sent().size() == predicted.size() ? "" : "something else was sent";
}

TEST(GradientExchanges, SendWhatIsPredicted) {
  for (const int64_t size : {2, 3, 8}) {
    for (const auto& outcome : run_ranks(size, sent_and_predicted)) EXPECT_EQ(outcome.text, "") << size << " ranks";
  }
}

const std::vector<std::vector<int64_t>> kShapes = {{3, 50}, {7}, {129}, {64, 2}, {1}};

/// The gradient of a parameter on a rank.
at::Tensor gradient(size_t parameter, int64_t rank) {
  return term(100 * static_cast<int64_t>(parameter) + rank, kShapes[parameter]).to(test_device());
}

std::string exchange(World& world, int64_t bucket_elements) {
  std::vector<int64_t> ranks(static_cast<size_t>(world.size()));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto group = world.make_group("data", ranks);
  std::vector<at::Tensor> parameters, gradients;
  for (size_t i = 0; i < kShapes.size(); ++i) {
    gradients.push_back(gradient(i, world.rank()));
    parameters.push_back(at::zeros_like(gradients.back()).requires_grad_(true));
  }
  const GradientExchange between(parameters, *group, /*piece_elements=*/64, bucket_elements);
  GradientReduction sums(between);
  for (size_t i = 0; i < gradients.size(); ++i) {  // in an order of each rank's own
    const size_t next = (i + static_cast<size_t>(world.rank())) % gradients.size();
    sums.add(next, gradients[next]);
  }
  sums.finish();
  // An update: what a rank owns of the sums becomes that of the parameters, or of what is made of them.
  const auto update = [&](const std::vector<at::Tensor>& tensors) {
    for (size_t i = 0; i < between.pieces().size(); ++i) {
      const Piece& piece = between.pieces()[i];
      const auto at = static_cast<size_t>(piece.parameter);
      if (!between.owns(i) || !tensors[at].defined()) continue;
      const auto slice = [&](const at::Tensor& x) { return x.detach().view({-1}).slice(0, piece.begin, piece.end); };
      slice(tensors[at]).copy_(slice(gradients[at]));
    }
    return tensors;
  };
  update(parameters);
  const uint32_t version = parameters.front()._version();
  between.spread(parameters);
  std::vector<at::Tensor> casts, on_host;  // of some; of the others nothing is sent
  for (size_t i = 0; i < kShapes.size(); ++i) {
    const bool is_there = i % 2 == 0;
    casts.push_back(is_there ? at::zeros(kShapes[i], gradients[i].options().dtype(at::kBFloat16)) : at::Tensor());
    on_host.push_back(is_there ? at::zeros(kShapes[i], at::kFloat) : at::Tensor());
  }
  between.spread(update(casts));
  between.spread(update(on_host));
  if (parameters.front()._version() == version && world.size() > 2) return "no version of a parameter was counted";
  for (size_t i = 0; i < kShapes.size(); ++i) {
    std::vector<at::Tensor> all;
    for (int64_t rank = 0; rank < world.size(); ++rank) all.push_back(gradient(i, rank));
    const at::Tensor sum = tree_sum(all);
    if (!parameters[i].equal(sum)) return "parameter " + std::to_string(i) + " is wrong";
    if (!casts[i].defined()) continue;
    if (!casts[i].equal(sum.to(at::kBFloat16))) return "cast " + std::to_string(i) + " is wrong";
    if (!on_host[i].equal(sum.cpu())) return "what is on the host of " + std::to_string(i) + " is wrong";
  }
  return "";
}

TEST(GradientExchanges, SumAndSpreadWithTheBitsOfOneProcessInWhateverOrderGradientsCome) {
  for (const int64_t size : {1, 2, 3, 4, 8}) {
    for (const int64_t bucket_elements : {50, 1 << 20}) {
      const auto outcomes = run_ranks(size, [&](World& world) { return exchange(world, bucket_elements); });
      for (const auto& outcome : outcomes) {
        EXPECT_EQ(outcome.exit_code, 0) << outcome.text;
        EXPECT_EQ(outcome.text, "") << size << " ranks, buckets of " << bucket_elements;
      }
    }
  }
}

TEST(GradientExchanges, RefuseWhatTheyCannotSum) {
  Group alone;
  const at::Tensor x = term(1, {4, 6});
  EXPECT_THROW(GradientExchange({x, x.to(at::kDouble)}, alone), InvalidArgument);
  const GradientExchange exchange({x}, alone);
  EXPECT_THROW(exchange.spread({x.t()}), InvalidArgument);
  EXPECT_THROW(exchange.spread({x, x}), InvalidArgument);
  EXPECT_THROW(GradientExchange({x, x}, alone).spread({x, x.to(at::kDouble)}), InvalidArgument);
  EXPECT_THROW(exchange.reduce({x, x}), InvalidArgument);
  EXPECT_THROW(GradientReduction(exchange).add(0, x.t()), InvalidArgument);
  EXPECT_THROW(GradientReduction(exchange).add(0, term(1, {4, 7})), InvalidArgument);
}

/// The gradients of a step of three ranks; the second is lost when it has sent the first of its buckets.
std::vector<parallel_test::Outcome> lose_a_rank(const std::function<void()>& lose) {
  return run_ranks(3,
                   [&](World& world) -> std::string {
                     const auto group = world.make_group("all", {0, 1, 2});
                     std::vector<at::Tensor> parameters;  // a bucket each, of three pieces of each rank
                     for (int64_t i = 0; i < 3; ++i) parameters.push_back(term(i, {576}).to(test_device()));
                     const GradientExchange between(parameters, *group, /*piece_elements=*/64, /*bucket_elements=*/576);
                     world.watch().set_place("step 3");
                     GradientReduction sums(between);
                     sums.add(2, parameters[2]);
                     if (world.rank() == 1) lose();
                     sums.add(1, parameters[1]);
                     sums.add(0, parameters[0]);
                     sums.finish();
                     group->to_host(parameters[0]);
                     return "";
                   },
                   {.timeout = std::chrono::milliseconds(2500), .limit = std::chrono::seconds(90)});
}

void expect_bucket_named(const std::vector<parallel_test::Outcome>& outcomes, const std::string& how) {
  for (const size_t rank : {0, 2}) {
    EXPECT_EQ(outcomes[rank].exit_code, 1);
    EXPECT_THAT(outcomes[rank].text, AllOf(HasSubstr("'step 3, sum of gradients, bucket "), HasSubstr("of 3' failed"),
                                           HasSubstr("rank 1 " + how)));
    EXPECT_LT(outcomes[rank].seconds, 2.5 + 5 + 4) << "the timeout, five seconds and the start";
  }
}

TEST(LostRanks, ThatAreKilledInBackwardAreNamed) {
  expect_bucket_named(lose_a_rank([] { ::raise(SIGKILL); }), "is dead or stopped; last seen in 'step 3");
}

TEST(LostRanks, ThatHangInBackwardAreNamedWithTheBucket) {
  expect_bucket_named(lose_a_rank([] { std::this_thread::sleep_for(std::chrono::seconds(8)); }),
                      "lives, but is in 'step 3, sum of gradients, bucket 1 of 3'");
}

}  // namespace
}  // namespace lighthouse

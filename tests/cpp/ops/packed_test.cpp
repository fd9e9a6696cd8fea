// Packed documents: each gives what a separate call on it gives. On the CPU bit for bit; on CUDA packed rows take
// another stock kernel, so floats may differ by its roundings.
#include <ATen/TensorOperators.h>
#include <gtest/gtest.h>

#include <array>

#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

std::vector<OpsCase> packed_cases() {
  std::vector<OpsCase> cases;
  for (const OpsCase& c : small_cases()) {
    if (!c.cu_seqlens.empty()) cases.push_back(c);
  }
  cases.push_back(
      {"longer", 1, 900, 4, 2, 16, make_config(32, 3, 4, 4), scored_by(Scorer::kNorm), {0, 17, 500, 500, 505, 900}});
  cases.push_back({"one_document", 1, 60, 2, 2, 4, make_config(5, 3, 2, 2), scored_by(Scorer::kNorm), {0, 60}});
  cases.push_back({"budget_not_a_multiple",
                   1,
                   300,
                   2,
                   1,
                   4,
                   make_config(17, 3, 2, 4),
                   scored_by(Scorer::kDilated, 3),
                   {0, 100, 300}});
  return cases;
}

at::Tensor slice_tokens(const at::Tensor& x, int64_t begin, int64_t end) {
  return x.defined() ? x.slice(1, begin, end).contiguous() : x;
}

class PackedTest : public testing::TestWithParam<std::tuple<OpsCase, at::ScalarType>> {};
INSTANTIATE_TEST_SUITE_P(
    Cases, PackedTest, testing::Combine(testing::ValuesIn(packed_cases()), testing::Values(at::kFloat, at::kBFloat16)),
    [](const auto& test) { return std::get<0>(test.param).name + "_" + c10::toString(std::get<1>(test.param)); });

TEST_P(PackedTest, EqualsSeparateCalls) {
  const auto& [c, dtype] = GetParam();
  const Inputs inputs = make_inputs(c, dtype);
  const Results packed = results_of(inputs, options_of(c, inputs));
  const at::Tensor selection = selection_of(c, inputs);
  const SequencePlan plan = make_plan(c.config, c.seq_len, c.cu_seqlens);
  for (const Document& document : plan.documents) {
    const int64_t begin = document.token_begin;
    const int64_t end = begin + document.pyramid.seq_len;
    if (begin == end) continue;
    OpsCase alone = c;
    alone.seq_len = end - begin;
    alone.cu_seqlens = {};
    alone.config.topk = document.tiles.topk;
    const Inputs part{slice_tokens(inputs.q, begin, end), slice_tokens(inputs.k, begin, end),
                      slice_tokens(inputs.v, begin, end), slice_tokens(inputs.dout, begin, end),
                      slice_tokens(inputs.gate, begin, end)};
    const Results separate = results_of(part, options_of(alone, part));
    for (int i = 0; i < 4; ++i) {
      EXPECT_TRUE(same_attention(slice_tokens(packed[i], begin, end), separate[i]))
          << kResultNames[i] << " of " << begin;
    }
    const at::Tensor rows = selection.slice(2, document.row_begin, document.row_begin + document.num_rows);
    EXPECT_TRUE(same_bits(rows - document.entry_begin, selection_of(alone, part))) << "selection of " << begin;
  }
}

TEST(PackedAttention, EqualsSeparateCallsOfStockAttention) {
  const at::Tensor q = normal({1, 4, 50, 8}, 1);
  const at::Tensor k = normal({1, 2, 50, 8}, 2);
  const at::Tensor v = normal({1, 2, 50, 8}, 3);
  const std::vector<int64_t> offsets{0, 0, 20, 20, 21, 50, 50};
  const at::Tensor packed = causal_attention(q, k, v, 0.5, offsets);
  for (size_t i = 0; i + 1 < offsets.size(); ++i) {
    if (offsets[i] == offsets[i + 1]) continue;
    const auto part = [&](const at::Tensor& x) { return x.slice(2, offsets[i], offsets[i + 1]).contiguous(); };
    EXPECT_TRUE(same_attention(part(packed), causal_attention(part(q), part(k), part(v), 0.5)));
  }
}

/// Documents that would not get shorter, among one that does.
TEST(PackedAttention, ShortDocumentsAreStockAttention) {
  const OpsCase c{
      "mixed", 1, 395, 4, 2, 8, make_config(16, 3, 4, 4), scored_by(Scorer::kNorm), {0, 24, 24, 25, 370, 395}};
  const SequencePlan plan = make_plan(c.config, c.seq_len, c.cu_seqlens);
  const Inputs inputs = make_inputs(c, at::kFloat);
  const Results mixed = results_of(inputs, options_of(c, inputs));
  int64_t num_full = 0;
  for (const Document& document : plan.documents) {
    const int64_t begin = document.token_begin;
    const int64_t end = begin + document.pyramid.seq_len;
    if (begin == end || document.num_rows < end - begin) continue;
    ++num_full;
    const Inputs part{slice_tokens(inputs.q, begin, end),
                      slice_tokens(inputs.k, begin, end),
                      slice_tokens(inputs.v, begin, end),
                      slice_tokens(inputs.dout, begin, end),
                      {}};
    const Results stock = results_of(part, [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return causal_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)).transpose(1, 2);
    });
    for (int i = 0; i < 4; ++i) {
      EXPECT_TRUE(same_attention(slice_tokens(mixed[i], begin, end), stock[i])) << kResultNames[i] << " of " << begin;
    }
  }
  EXPECT_EQ(num_full, 3);
  EXPECT_FALSE(plan.is_full());
}

/// Whole rows, and rows of documents, that would not get shorter: no scorer runs, so scores that are no numbers show
/// nowhere, and the caller's attention is given q, k and v.
TEST(PackedAttention, FullRowsAreStockAttention) {
  for (const std::vector<int64_t>& cu_seqlens : {std::vector<int64_t>{}, {0, 7, 7, 8, 30, 60}}) {
    const OpsCase c{"full", 1, 60, 4, 2, 8, make_config(100, 3, 2), scored_by(Scorer::kNorm), cu_seqlens};
    const Inputs inputs = make_inputs(c, at::kFloat);
    AttentionOptions options = options_of(c, inputs);
    const Results ours = results_of(inputs, options);
    const Results stock = results_of(inputs, [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      return causal_attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), std::nullopt, c.offsets())
          .transpose(1, 2);
    });
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(ours[i], stock[i])) << kResultNames[i];

    options.attention = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
      EXPECT_EQ(q.storage().data(), inputs.q.storage().data());
      return causal_attention(q, k, v);
    };
    EXPECT_TRUE(same_attention(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), ours[0]));
    options.attention = nullptr;
    options.selection = selection_of(c, inputs);
    EXPECT_TRUE(same_bits(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), ours[0]));
    options.selection = options.selection->flip(-1);
    EXPECT_THROW(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), c10::ValueError);
    if (!cu_seqlens.empty()) continue;  // on the CPU a row must lie in its document, checked or not
    options.check_selection = false;
    EXPECT_TRUE(same_bits(lighthouse_attention(inputs.q, inputs.k, inputs.v, options), ours[0]));
  }
}

TEST(PackedAttention, CallsTheCallersAttentionForEachDocument) {
  const OpsCase c = packed_cases().front();
  const Inputs inputs = make_inputs(c, at::kFloat);
  AttentionOptions options = options_of(c, inputs);
  std::vector<int64_t> lengths;
  options.attention = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    lengths.push_back(q.size(2));
    return causal_attention(q, k, v);
  };
  const at::Tensor out = lighthouse_attention(inputs.q, inputs.k, inputs.v, options);
  EXPECT_TRUE(same_attention(out, lighthouse_attention(inputs.q, inputs.k, inputs.v, options_of(c, inputs))));
  std::vector<int64_t> expected;
  for (const Document& document : make_plan(c.config, c.seq_len, c.cu_seqlens).documents) {
    if (document.num_rows > 0) expected.push_back(document.num_rows);
  }
  EXPECT_EQ(lengths, expected);
}

}  // namespace
}  // namespace lighthouse::ops_test

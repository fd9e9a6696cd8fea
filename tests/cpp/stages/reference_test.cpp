// What the golden data does not cover of the reference: the worked example of docs/algorithm.md, packed documents,
// grouped heads, gradients and causality.
#include "reference/lighthouse.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <vector>

#include "stage_cases.h"

namespace lighthouse {
namespace {

using reference::Selection;
using reference::Sequence;
using reference::Tensor;

Tensor tokens_of(const Tensor& x, int64_t begin, int64_t end) {
  Tensor part(x.batch, end - begin, x.heads, x.channels);
  std::copy_n(x.at(0, begin, 0), part.values.size(), part.values.begin());
  return part;
}

struct Inputs {
  Sequence sequence;
  Tensor q, k, v, dout;
  Selection selection;
};

/// Grouped heads, a length that p does not divide, and with `packed` four documents, one of them empty.
Inputs make_inputs(bool packed, int64_t topk = 5) {
  CaseGenerator random(31);
  Inputs inputs{{45, {}, {}}, {}, {}, {}, {}, {}};
  inputs.sequence.config.pooling_factor = 2;
  inputs.sequence.config.topk = topk;
  inputs.sequence.config.tile_topk = 3;
  if (packed) inputs.sequence.cu_seqlens = {0, 18, 18, 23, 45};
  inputs.q = random.normals(1, 45, 4, 3);
  inputs.k = random.normals(1, 45, 2, 3);
  inputs.v = random.normals(1, 45, 2, 3);
  inputs.dout = random.normals(1, 45, 4, 3);
  inputs.selection = reference::select(reference::norm_scores(inputs.q, inputs.k), inputs.sequence);
  return inputs;
}

TEST(Reference, WorkedExample) {
  Sequence sequence{32, {}, {}};
  sequence.config.pooling_factor = 2;
  sequence.config.topk = 3;
  reference::Scores scores{Tensor(1, 32, 1, 1), Tensor(1, 32, 1, 1)};
  scores.qk.values = {3, 1, 4, 2, 2, 5, 1, 3, 4, 2, 3, 1, 2, 6, 3, 5, 1, 2, 4, 3, 5, 9, 7, 2, 3, 1, 2, 4, 6, 2, 1, 3};
  scores.kq.values = {2, 4, 1, 3, 1, 2, 6, 3, 2, 1, 5, 2, 7, 3, 4, 7, 3, 5, 2, 1, 8, 4, 2, 6, 2, 3, 1, 5, 4, 6, 2, 1};
  const std::vector<int32_t> expected = {0, 1, 32, 33, 48, 49, 50, 12, 13, 38, 39, 51, 52, 20, 21, 42, 43, 53, 54, 55};
  const Selection selection = reference::select(scores, sequence);
  EXPECT_EQ(selection.entries, expected);
  // Token 14 gets rows 9 and 6.
  Tensor rows(1, 20, 1, 1);
  for (size_t row = 0; row < rows.values.size(); ++row) rows.values[row] = std::ldexp(1.0, static_cast<int>(row));
  EXPECT_EQ(reference::scatter(rows, selection, sequence).values[14], (1 << 9) + (1 << 6));
}

TEST(Reference, OneLevelIsDenseAttention) {
  Inputs inputs = make_inputs(false);
  inputs.sequence.config.num_levels = 1;
  inputs.selection = reference::select(reference::norm_scores(inputs.q, inputs.k), inputs.sequence);
  const Tensor o = reference::attention(inputs.q, inputs.k, inputs.v, inputs.selection, inputs.sequence, 0.3);
  for (int64_t head = 0; head < 4; ++head) {
    for (int64_t token = 0; token < 45; ++token) {
      double weights = 0;
      double sum[3] = {};
      for (int64_t past = 0; past <= token; ++past) {
        double logit = 0;
        for (int c = 0; c < 3; ++c) logit += 0.3 * inputs.q.at(0, token, head)[c] * inputs.k.at(0, past, head / 2)[c];
        weights += std::exp(logit);
        for (int c = 0; c < 3; ++c) sum[c] += std::exp(logit) * inputs.v.at(0, past, head / 2)[c];
      }
      for (int c = 0; c < 3; ++c) ASSERT_NEAR(o.at(0, token, head)[c], sum[c] / weights, 1e-13);
    }
  }
}

TEST(Reference, DocumentsEqualSeparateCalls) {
  const Inputs packed = make_inputs(true);
  const Sequence& sequence = packed.sequence;
  const Tensor o = reference::attention(packed.q, packed.k, packed.v, packed.selection, sequence);
  const SequencePlan plan = make_plan(sequence.config, sequence.seq_len, sequence.cu_seqlens);
  for (const Document& document : plan.documents) {
    if (document.pyramid.seq_len == 0) continue;
    const int64_t end = document.token_begin + document.pyramid.seq_len;
    const Tensor q = tokens_of(packed.q, document.token_begin, end);
    const Tensor k = tokens_of(packed.k, document.token_begin, end);
    const Tensor v = tokens_of(packed.v, document.token_begin, end);
    Sequence alone{document.pyramid.seq_len, sequence.config, {}};
    alone.config.topk = document.tiles.topk;
    const Selection selection = reference::select(reference::norm_scores(q, k), alone);
    ASSERT_EQ(selection.rows, document.num_rows);
    EXPECT_EQ(reference::attention(q, k, v, selection, alone).values, tokens_of(o, document.token_begin, end).values);
  }
}

double loss(const Inputs& inputs) {
  const Tensor o = reference::attention(inputs.q, inputs.k, inputs.v, inputs.selection, inputs.sequence);
  double sum = 0;
  for (size_t i = 0; i < o.values.size(); ++i) sum += o.values[i] * inputs.dout.values[i];
  return sum;
}

/// Central differences: their own error is of the order of step^2, 1e-8, and of the loss's rounding / step, 1e-10.
// NOLINTNEXTLINE(performance-unnecessary-value-param): the copy is changed, through `input`
void expect_gradient(Inputs inputs, Tensor Inputs::*input, const Tensor& gradient) {
  constexpr double kStep = 1e-4;
  for (size_t i = 0; i < gradient.values.size(); i += 5) {
    double& value = (inputs.*input).values[i];
    const double at = value;
    value = at + kStep;
    const double above = loss(inputs);
    value = at - kStep;
    const double below = loss(inputs);
    value = at;
    ASSERT_NEAR(gradient.values[i], (above - below) / (2 * kStep), 1e-6) << "element " << i;
  }
}

TEST(Reference, GradientsEqualDifferences) {
  for (const bool packed : {false, true}) {
    const Inputs inputs = make_inputs(packed);
    const auto [dq, dk, dv] =
        reference::attention_backward(inputs.q, inputs.k, inputs.v, inputs.selection, inputs.dout, inputs.sequence);
    expect_gradient(inputs, &Inputs::q, dq);
    expect_gradient(inputs, &Inputs::k, dk);
    expect_gradient(inputs, &Inputs::v, dv);
  }
}

TEST(Reference, OutputsDoNotSeeLaterTokens) {
  for (const bool packed : {false, true}) {
    const Inputs inputs = make_inputs(packed);
    const Tensor o = reference::attention(inputs.q, inputs.k, inputs.v, inputs.selection, inputs.sequence);
    for (const int64_t changed : {0, 7, 19, 30, 40}) {
      Inputs other = inputs;
      for (Tensor* x : {&other.q, &other.k, &other.v}) {
        for (int64_t i = 0; i < x->heads * x->channels; ++i) x->at(0, changed, 0)[i] += 1;
      }
      const Tensor moved = reference::attention(other.q, other.k, other.v, other.selection, other.sequence);
      const auto before = tokens_of(o, 0, changed).values;
      EXPECT_EQ(tokens_of(moved, 0, changed).values, before) << "token " << changed << " moved its past";
      EXPECT_NE(moved.values, o.values);
    }
  }
}

}  // namespace
}  // namespace lighthouse

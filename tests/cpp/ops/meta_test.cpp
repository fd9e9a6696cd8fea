// Meta kernels give the shapes, dtypes and strides that CPU kernels do.
#include <ATen/TensorOperators.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <gtest/gtest.h>

#include "ops/internal.h"
#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

at::Tensor to_meta(const at::Tensor& x) { return x.defined() ? x.to(at::kMeta) : x; }

Inputs to_meta(const Inputs& inputs) {
  return {to_meta(inputs.q), to_meta(inputs.k), to_meta(inputs.v), to_meta(inputs.dout), to_meta(inputs.gate)};
}

void expect_same_kind(const at::Tensor& meta, const at::Tensor& cpu, const char* name) {
  EXPECT_TRUE(meta.is_meta()) << name;
  EXPECT_EQ(meta.sizes(), cpu.sizes()) << name;
  EXPECT_EQ(meta.strides(), cpu.strides()) << name;
  EXPECT_EQ(meta.scalar_type(), cpu.scalar_type()) << name;
}

/// Outputs of every operator below the public ones.
std::vector<at::Tensor> run_operators(const OpsCase& c, const Inputs& inputs) {
  const auto& [q, k, v, dout, gate] = inputs;
  const auto layout = ops::layout_of(c.config);
  std::vector<at::Tensor> outputs{ops::token_norms(q, k.size(2))};
  if (gate.defined()) {
    const auto [s_qk, s_kq] = ops::gla_scores(q, k, v, gate, c.score.dilation, c.offsets());
    outputs.insert(outputs.end(), {s_qk, s_kq});
  }
  const at::Tensor scores = ops::token_norms(k, k.size(2));
  const auto [selection, slots] = ops::select_entries(scores, scores, layout, true, c.offsets());
  const at::Tensor inverted = ops::invert_selection(selection, c.seq_len, layout, c.offsets(), true);
  const auto [q_rows, k_rows, v_rows] = ops::gather_rows(q, k, v, selection, slots, layout, c.offsets());
  const auto [dq, dk, dv] =
      ops::gather_rows_backward(q_rows, k_rows, v_rows, selection, slots, c.seq_len, layout, c.offsets());
  const at::Tensor out = ops::scatter_rows(q_rows, selection, slots, c.seq_len, layout, c.offsets());
  const at::Tensor drows = ops::scatter_rows_backward(dout, selection, slots, layout, c.offsets());
  outputs.insert(outputs.end(), {selection, slots, inverted, q_rows, k_rows, v_rows, dq, dk, dv, out, drows});
  return outputs;
}

class MetaTest : public testing::TestWithParam<OpsCase> {};
INSTANTIATE_TEST_SUITE_P(Cases, MetaTest, testing::ValuesIn(small_cases()),
                         [](const auto& test) { return test.param.name; });

TEST_P(MetaTest, OperatorsGiveTheSameKindOfTensors) {
  const OpsCase& c = GetParam();
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16}) {
    const Inputs inputs = make_inputs(c, dtype);
    const std::vector<at::Tensor> cpu = run_operators(c, inputs);
    const std::vector<at::Tensor> meta = run_operators(c, to_meta(inputs));
    ASSERT_EQ(meta.size(), cpu.size());
    for (size_t i = 0; i < cpu.size(); ++i) expect_same_kind(meta[i], cpu[i], std::to_string(i).c_str());
  }
}

TEST_P(MetaTest, AttentionAndItsGradientsGiveTheSameKindOfTensors) {
  const OpsCase& c = GetParam();
  if (c.score.scorer == "dilated")
    GTEST_SKIP() << "stock attention has no Meta kernel in C++; torch.compile has its own";
  // For the same reason something else stands in the middle.
  const auto run = [&](const Inputs& inputs) {
    AttentionOptions options = options_of(c, inputs);
    options.attention = [](const at::Tensor& q, const at::Tensor&, const at::Tensor&) { return q * 2; };
    return results_of(inputs, options);
  };
  const Inputs inputs = make_inputs(c, at::kFloat);
  const Results cpu = run(inputs);
  const Results meta = run(to_meta(inputs));
  for (int i = 0; i < 4; ++i) expect_same_kind(meta[i], cpu[i], kResultNames[i]);

  const auto scores = [&](const Inputs& x) {
    return token_scores(x.q, x.k, x.v, c.score, options_of(c, x).gate, c.offsets());
  };
  expect_same_kind(std::get<0>(scores(to_meta(inputs))), std::get<0>(scores(inputs)), "s_qk");
  expect_same_kind(std::get<1>(scores(to_meta(inputs))), std::get<1>(scores(inputs)), "s_kq");
}

TEST(Registration, EveryPublicFunctionIsAnOperator) {
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const char* name : {"token_scores", "select", "gather", "scatter", "causal_attention", "attention"}) {
    EXPECT_TRUE(dispatcher.findSchema({std::string("lighthouse::") + name, ""}).has_value()) << name;
  }
  const auto op = dispatcher.findSchemaOrThrow("lighthouse::gathered_length", "");
  const SelectionConfig config = make_config(8, 3, 4, 2);
  const auto call = op.typed<int64_t(int64_t, int64_t, int64_t, int64_t, int64_t, at::OptionalIntArrayRef)>();
  EXPECT_EQ(call.call(1000, 3, 4, 8, 2, std::nullopt), gathered_length(1000, config));
  const std::vector<int64_t> cu_seqlens{0, 300, 301, 1000};
  EXPECT_EQ(call.call(1000, 3, 4, 8, 2, at::OptionalIntArrayRef(cu_seqlens)),
            gathered_length(1000, config, cu_seqlens));
  EXPECT_NE(gathered_length(1000, config, cu_seqlens), gathered_length(1000, config));
}

TEST(Registration, TheAttentionOperatorIsTheFunction) {
  const OpsCase c = small_cases()[9];  // gla: every argument counts
  const Inputs inputs = make_inputs(c, at::kFloat);
  const auto op = c10::Dispatcher::singleton().findSchemaOrThrow("lighthouse::attention", "");
  torch::jit::Stack stack{inputs.q,
                          inputs.k,
                          inputs.v,
                          c.config.num_levels,
                          c.config.pooling_factor,
                          c.config.topk,
                          c.config.tile_topk,
                          c.score.scorer,
                          c.score.dilation,
                          inputs.gate,
                          c10::IValue(),
                          c10::IValue(),
                          true,
                          c10::IValue(),
                          0.4,
                          c10::IValue(),
                          true,
                          true};
  op.callBoxed(stack);
  AttentionOptions options = repeatable(options_of(c, inputs));
  options.softmax_scale = 0.4;
  EXPECT_TRUE(same_bits(stack.at(0).toTensor(), lighthouse_attention(inputs.q, inputs.k, inputs.v, options)));
}

}  // namespace
}  // namespace lighthouse::ops_test

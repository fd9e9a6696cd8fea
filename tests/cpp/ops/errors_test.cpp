// Wrong calls: each throws c10::ValueError with a message that holds the value and what would do.
#include <ATen/TensorOperators.h>
#include <c10/util/Exception.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>

#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

/// Arguments of one call, right before a WrongCall spoils them.
struct Call {
  Inputs inputs = make_inputs({"right", 1, 64, 4, 2, 8, {}, scored_by(Scorer::kNorm), {}}, at::kFloat);
  AttentionOptions options;
  std::vector<int64_t> cu_seqlens;
  bool packed = false;

  Call() { options.selection_config = make_config(4, 3, 2); }
  Call& pack(std::vector<int64_t> offsets) {
    cu_seqlens = std::move(offsets);
    packed = true;
    return *this;
  }
  at::Tensor run() {
    if (packed) options.cu_seqlens = cu_seqlens;
    return lighthouse_attention(inputs.q, inputs.k, inputs.v, options);
  }
  at::Tensor selection() const {
    const auto both = scores();
    return select(std::get<0>(both), std::get<1>(both), options.selection_config);
  }
  std::tuple<at::Tensor, at::Tensor> scores() const { return token_scores(inputs.q, inputs.k, inputs.v); }
  at::Tensor gate() const { return normal({1, 64, 4}, 5).abs().neg(); }
};

struct WrongCall {
  const char* name;
  std::function<void(Call&)> run;    ///< spoils the call and runs it
  std::vector<const char*> message;  ///< parts: the operation, the value, the remedy
};

std::vector<WrongCall> wrong_tensors() {
  return {
      {"int_q",
       [](Call& c) {
         c.inputs.q = c.inputs.q.to(at::kInt);
         c.run();
       },
       {"lighthouse_attention: q is Int", "Float, Double, BFloat16 or Half"}},
      {"complex_q",
       [](Call& c) {
         c.inputs.q = c.inputs.q.to(at::kComplexFloat);
         c.run();
       },
       {"q is ComplexFloat", "Float, Double, BFloat16 or Half"}},
      {"k_of_another_dtype",
       [](Call& c) {
         c.inputs.k = c.inputs.k.to(at::kDouble);
         c.run();
       },
       {"k is Double", "q is Float", "cast"}},
      {"v_of_another_dtype",
       [](Call& c) {
         c.inputs.v = c.inputs.v.to(at::kHalf);
         c.run();
       },
       {"v is Half", "q is Float", "cast"}},
      {"q_of_3_dimensions",
       [](Call& c) {
         c.inputs.q = c.inputs.q[0];
         c.run();
       },
       {"q has 3 dimensions", "[batch, seq_len, num_heads, head_dim]"}},
      {"k_of_5_dimensions",
       [](Call& c) {
         c.inputs.k = c.inputs.k.unsqueeze(0);
         c.run();
       },
       {"k has 5 dimensions", "[batch, seq_len, num_kv_heads, head_dim]"}},
      {"undefined_v",
       [](Call& c) {
         c.inputs.v = at::Tensor();
         c.run();
       },
       {"v is an undefined tensor", "[batch, seq_len, num_kv_heads, head_dim]"}},
      {"no_tokens",
       [](Call& c) {
         for (at::Tensor* x : {&c.inputs.q, &c.inputs.k, &c.inputs.v}) *x = x->slice(1, 0, 0);
         c.run();
       },
       {"[1, 0, 4, 8]", "no size zero"}},
      {"k_of_another_length",
       [](Call& c) {
         c.inputs.k = c.inputs.k.slice(1, 1);
         c.run();
       },
       {"k has shape [1, 63, 2, 8]", "q has [1, 64, 4, 8]", "number of heads"}},
      {"k_of_another_batch",
       [](Call& c) {
         c.inputs.k = c.inputs.k.expand({2, 64, 2, 8});
         c.run();
       },
       {"k has shape [2, 64, 2, 8]", "number of heads"}},
      {"k_of_another_head_dim",
       [](Call& c) {
         c.inputs.k = c.inputs.k.slice(3, 0, 4);
         c.run();
       },
       {"k has shape [1, 64, 2, 4]", "number of heads"}},
      {"v_of_another_shape",
       [](Call& c) {
         c.inputs.v = c.inputs.v.slice(2, 0, 1);
         c.run();
       },
       {"v has shape [1, 64, 1, 8]", "k has [1, 64, 2, 8]", "equal"}},
      {"heads_not_a_multiple",
       [](Call& c) {
         c.inputs.q = c.inputs.q.slice(2, 0, 3);
         c.run();
       },
       {"num_heads 3", "num_kv_heads 2", "same number of query heads"}},
  };
}

std::vector<WrongCall> wrong_places() {
  return {
      {"strided_channels_of_q",
       [](Call& c) {
         c.inputs.q = normal({1, 64, 4, 16}, 1).slice(3, 0, std::nullopt, 2);
         c.run();
       },
       {"channels of q have stride 2", "q.contiguous()"}},
      {"transposed_channels_of_v",
       [](Call& c) {
         c.inputs.v = normal({1, 64, 8, 2}, 1).transpose(2, 3);
         c.run();
       },
       {"channels of v have stride 2", "v.contiguous()"}},
      {"expanded_channels_of_k",
       [](Call& c) {
         c.inputs.k = normal({1, 64, 2, 1}, 1).expand({1, 64, 2, 8});
         c.run();
       },
       {"channels of k have stride 0", "k.contiguous()"}},
      {"k_on_another_device",
       [](Call& c) {
         c.inputs.k = c.inputs.k.to(at::kMeta);
         c.run();
       },
       {"k is on meta", "but q is on", "one device"}},
      {"sparse_q",
       [](Call& c) {
         c.inputs.q = c.inputs.q.to_sparse();
         c.run();
       },
       {"layout Sparse", "to_dense"}},
  };
}

std::vector<WrongCall> wrong_configurations() {
  const auto with = [](auto SelectionConfig::*key, int64_t value) {
    return [key, value](Call& c) {
      c.options.selection_config.*key = value;
      c.run();
    };
  };
  const auto scaled = [](double scale) {
    return [scale](Call& c) {
      c.options.softmax_scale = scale;
      c.run();
    };
  };
  return {
      {"no_levels", with(&SelectionConfig::num_levels, 0), {"num_levels is 0", "between 1"}},
      {"nine_levels", with(&SelectionConfig::num_levels, 9), {"num_levels is 9", "and 8"}},
      {"pooling_3", with(&SelectionConfig::pooling_factor, 3), {"pooling_factor is 3", "2, 4, 8 or 16"}},
      {"pooling_32", with(&SelectionConfig::pooling_factor, 32), {"pooling_factor is 32", "2, 4, 8 or 16"}},
      {"topk_0", with(&SelectionConfig::topk, 0), {"topk is 0", "between 1"}},
      {"topk_negative", with(&SelectionConfig::topk, -5), {"topk is -5", "between 1"}},
      {"topk_above_int32", with(&SelectionConfig::topk, int64_t{1} << 31), {"topk is 2147483648", "2147483647"}},
      {"tile_topk_0", with(&SelectionConfig::tile_topk, 0), {"tile_topk is 0", "between 1"}},
      {"scale_0", scaled(0), {"softmax_scale is 0", "positive"}},
      {"scale_negative", scaled(-1), {"softmax_scale is -1", "positive"}},
      {"scale_nan", scaled(NAN), {"softmax_scale is", "nan", "positive"}},
      {"scale_infinite", scaled(INFINITY), {"softmax_scale is inf", "finite"}},
      {"unknown_scorer",
       [](Call& c) {
         c.options.score_config.scorer = Scorer::kRandom;
         c.run();
       },
       {"token_scores: scorer is 'random'", "norm, dilated or gla"}},
      {"dilation_0",
       [](Call& c) {
         c.options.score_config = {Scorer::kDilated, 0};
         c.run();
       },
       {"dilation is 0", "at least 1"}},
      {"dilation_negative_for_gla",
       [](Call& c) {
         c.options.score_config = {Scorer::kGla, -2};
         c.options.gate = c.gate();
         c.run();
       },
       {"dilation is -2", "at least 1"}},
      {"gate_missing",
       [](Call& c) {
         c.options.score_config.scorer = Scorer::kGla;
         c.run();
       },
       {"scorer is 'gla'", "pass the log forget gate"}},
      {"gate_for_norm",
       [](Call& c) {
         c.options.gate = c.gate();
         c.run();
       },
       {"scorer is 'norm'", "only scorer 'gla'"}},
      {"gate_of_another_shape",
       [](Call& c) {
         c.options.score_config.scorer = Scorer::kGla;
         c.options.gate = c.gate().slice(2, 0, 2);
         c.run();
       },
       {"gate has shape [1, 64, 2]", "[1, 64, 4]"}},
      {"integer_gate",
       [](Call& c) {
         c.options.score_config.scorer = Scorer::kGla;
         c.options.gate = c.gate().to(at::kInt);
         c.run();
       },
       {"gate is Int", "floating point"}},
      {"gate_with_scores",
       [](Call& c) {
         c.options.gate = c.gate();
         c.options.scores = c.scores();
         c.run();
       },
       {"a gate is given, but scores too", "leave one out"}},
  };
}

std::vector<WrongCall> wrong_documents() {
  const auto packed = [](std::vector<int64_t> offsets) {
    return [offsets = std::move(offsets)](Call& c) { c.pack(offsets).run(); };
  };
  return {
      {"decreasing", packed({0, 40, 30, 64}), {"decreases from 40 to 30 at position 2", "never decrease"}},
      {"too_short", packed({0, 40}), {"ends at 40", "64 tokens", "length of the row"}},
      {"too_long", packed({0, 40, 65}), {"ends at 65", "64 tokens", "length of the row"}},
      {"not_from_0", packed({1, 64}), {"starts at 1", "start at 0"}},
      {"one_offset", packed({0}), {"has 1 elements", "at least 2"}},
      {"no_offset", packed({}), {"has 0 elements", "left out"}},
      {"two_rows",
       [](Call& c) {
         c.inputs = make_inputs({"two", 2, 64, 4, 2, 8, {}, scored_by(Scorer::kNorm), {}}, at::kFloat);
         c.pack({0, 64}).run();
       },
       {"batch 2", "batch 1", "concatenate"}},
      {"scores_of_documents_too_short",
       [](Call& c) {
         token_scores(c.inputs.q, c.inputs.k, c.inputs.v, {}, std::nullopt, std::vector<int64_t>{0, 8});
       },
       {"token_scores: cu_seqlens ends at 8", "length of the row"}},
      {"rows_of_documents_too_long",
       [](Call& c) {
         causal_attention(c.inputs.q.transpose(1, 2), c.inputs.k.transpose(1, 2), c.inputs.v.transpose(1, 2),
                          std::nullopt, std::vector<int64_t>{0, 70});
       },
       {"causal_attention: cu_seqlens ends at 70", "length of the row"}},
  };
}

std::vector<WrongCall> wrong_scores_and_selections() {
  const auto with_scores = [](auto spoil) {
    return [spoil](Call& c) {
      auto [s_qk, s_kq] = c.scores();
      spoil(s_qk, s_kq);
      c.options.scores = {s_qk, s_kq};
      c.run();
    };
  };
  const auto with_selection = [](auto spoil) {
    return [spoil](Call& c) {
      at::Tensor selection = c.selection();
      spoil(selection);
      c.options.selection = selection;
      c.run();
    };
  };
  using T = at::Tensor;
  return {
      {"double_scores",
       with_scores([](T& a, T& b) { a = a.to(at::kDouble), b = b.to(at::kDouble); }),
       {"s_qk is Double", "s_qk.to(torch.float32)"}},
      {"double_s_kq", with_scores([](T&, T& b) { b = b.to(at::kDouble); }), {"s_kq is Double", "torch.float32"}},
      {"scores_by_query_head",
       with_scores([](T& a, T& b) {
         a = b = normal({1, 4, 64}, 1);
       }),
       {"s_qk has shape [1, 4, 64]", "[1, 2, 64]"}},
      {"short_s_kq", with_scores([](T&, T& b) { b = b.slice(2, 1); }), {"s_kq has shape [1, 2, 63]", "[1, 2, 64]"}},
      {"scores_of_2_dimensions",
       [](Call&) {
         select(normal({2, 64}, 1), normal({2, 64}, 1), make_config(4));
       },
       {"select: s_qk has 2 dimensions", "[batch, num_kv_heads, seq_len]"}},
      {"empty_scores",
       [](Call&) {
         select(normal({1, 2, 0}, 1), normal({1, 2, 0}, 1), make_config(4));
       },
       {"s_qk has shape [1, 2, 0]", "no size zero"}},
      {"entry_too_large",
       with_selection([](T& s) { s[0][1][3] = 5000; }),
       {"(batch 0, KV head 1, row 3) is 5000", "[0, 112)"}},
      {"entry_negative", with_selection([](T& s) { s[0][0][0] = -1; }), {"row 0) is -1", "[0, 112)"}},
      {"entry_twice",
       with_selection([](T& s) { s[0][0][5] = s[0][0][4]; }),
       {"row 5) is ", "after row 4, ", "it must be "}},
      {"long_selection", with_selection([](T& s) { s = s.to(at::kLong); }), {"selection is Long", "torch.int32"}},
      {"selection_too_short",
       with_selection([](T& s) { s = s.slice(2, 1); }),
       {"selection has shape [1, 2, 31]", "[1, 2, 32]"}},
      {"selection_of_2_dimensions",
       with_selection([](T& s) { s = s[0]; }),
       {"selection has 2 dimensions", "[batch, num_kv_heads, gathered_len]"}},
      {"selection_of_query_heads",
       with_selection([](T& s) {
         s = s.repeat({1, 2, 1});
       }),
       {"selection has shape [1, 4, 32]", "[1, 2, 32]"}},
      {"selection_on_another_device",
       with_selection([](T& s) { s = s.to(at::kMeta); }),
       {"selection is on meta", "one device"}},
  };
}

std::vector<WrongCall> wrong_steps() {
  const auto attention_returns = [](auto spoil) {
    return [spoil](Call& c) {
      c.options.attention = [spoil](const at::Tensor& q, const at::Tensor&, const at::Tensor&) { return spoil(q); };
      c.run();
    };
  };
  using T = at::Tensor;
  return {
      {"attention_of_another_shape",
       attention_returns([](const T& q) { return q.transpose(1, 2); }),
       {"result of `attention` has shape [1, 32, 4, 8]", "[1, 4, 32, 8]"}},
      {"attention_of_another_dtype",
       attention_returns([](const T& q) { return q.to(at::kDouble); }),
       {"result of `attention` is Double", "Float"}},
      {"attention_of_odd_strides",
       attention_returns([](const T& q) { return q.transpose(2, 3).contiguous().transpose(2, 3); }),
       {"channels of the result of `attention` have stride 32", "contiguous()"}},
      {"attention_and_scale",
       [](Call& c) {
         c.options.attention = [](const T& q, const T&, const T&) { return q; };
         c.options.softmax_scale = 0.5;
         c.run();
       },
       {"softmax_scale is 0.5", "leave one out"}},
      {"scatter_of_too_few_rows",
       [](Call& c) {
         scatter(normal({1, 4, 31, 8}, 1), c.selection(), 64, c.options.selection_config);
       },
       {"scatter: there are 31 rows", "gather 32"}},
      {"scatter_of_another_group",
       [](Call& c) {
         scatter(normal({1, 3, 32, 8}, 1), c.selection(), 64, c.options.selection_config);
       },
       {"scatter: num_heads 3", "num_kv_heads 2"}},
      {"scatter_to_no_tokens",
       [](Call& c) {
         scatter(normal({1, 4, 32, 8}, 1), c.selection(), 0, c.options.selection_config);
       },
       {"has 0 tokens", "between 1"}},
      {"gather_with_another_config",
       [](Call& c) { gather(c.inputs.q, c.inputs.k, c.inputs.v, c.selection(), make_config(8, 3, 2)); },
       {"selection has shape [1, 2, 32]", "[1, 2, 48]"}},
  };
}

std::vector<WrongCall> all_wrong_calls() {
  std::vector<WrongCall> all;
  for (const auto& calls : {wrong_tensors(), wrong_places(), wrong_configurations(), wrong_documents(),
                            wrong_scores_and_selections(), wrong_steps()}) {
    all.insert(all.end(), calls.begin(), calls.end());
  }
  return all;
}

TEST(ErrorsTest, NameTheValueAndTheRemedy) {
  for (const WrongCall& wrong : all_wrong_calls()) {
    SCOPED_TRACE(wrong.name);
    Call call;
    try {
      wrong.run(call);
      ADD_FAILURE() << "did not throw";
    } catch (const c10::ValueError& error) {
      for (const char* part : wrong.message) EXPECT_THAT(error.what_without_backtrace(), testing::HasSubstr(part));
    }
  }
  EXPECT_GE(all_wrong_calls().size(), 60U);
}

TEST(ErrorsTest, AWrongCallChangesNothingForTheNext) {
  const at::Tensor before = Call().run();
  for (const WrongCall& wrong : all_wrong_calls()) {
    Call call;
    EXPECT_THROW(wrong.run(call), c10::ValueError) << wrong.name;
  }
  EXPECT_TRUE(same_bits(Call().run(), before));
}

}  // namespace
}  // namespace lighthouse::ops_test

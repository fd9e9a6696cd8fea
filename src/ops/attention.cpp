// Sections (i) to (vii) put together.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <utility>
#include <vector>

#include "lighthouse/ops.h"
#include "ops/checks.h"
#include "ops/internal.h"

namespace lighthouse {
namespace {

constexpr const char* kOperation = "lighthouse_attention";

/// Grouped-query heads are left to SDPA: on the CPU its flash kernel takes them, with the same bits and the same time
/// as on keys and values that were repeated for every query head (H = 8, H_kv = 2, S = 1024, D = 64, forward and
/// backward: 24 ms against 25 ms), and nothing is copied.
at::Tensor stock_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           std::optional<double> softmax_scale) {
  const bool grouped = q.sym_size(1) != k.sym_size(1);
  return at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, /*is_causal=*/true,
                                          softmax_scale, grouped);
}

/// One call for each document that has rows. Splitting at once, not slicing, keeps the backward linear in their number.
at::Tensor attend_documents(const InnerAttention& attention, const at::Tensor& q, const at::Tensor& k,
                            const at::Tensor& v, const std::vector<int64_t>& num_rows) {
  if (num_rows.size() == 1) return attention(q, k, v);
  const std::vector<at::Tensor> q_parts = q.split_with_sizes(num_rows, 2);
  const std::vector<at::Tensor> k_parts = k.split_with_sizes(num_rows, 2);
  const std::vector<at::Tensor> v_parts = v.split_with_sizes(num_rows, 2);
  std::vector<at::Tensor> outputs;
  for (size_t document = 0; document < num_rows.size(); ++document) {
    if (num_rows[document] == 0) continue;
    outputs.push_back(attention(q_parts[document], k_parts[document], v_parts[document]));
  }
  return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 2);
}

/// The caller's attention with what it returns checked.
InnerAttention checked(const InnerAttention& attention) {
  return [&attention](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    at::Tensor out = attention(q, k, v);
    ops::check_shape(kOperation, "the result of `attention`", out, q.sym_sizes(), "[batch, num_heads, rows, head_dim]",
                     q);
    TORCH_CHECK_VALUE(out.scalar_type() == q.scalar_type(), kOperation, ": the result of `attention` is ",
                      out.scalar_type(), ", but it was given ", q.scalar_type(), "; cast it to that");
    ops::check_heads(kOperation, "the result of `attention`", out);
    return out;
  };
}

std::vector<int64_t> rows_of_documents(const SequencePlan& plan) {
  std::vector<int64_t> num_rows;
  for (const Document& document : plan.documents) num_rows.push_back(document.num_rows);
  return num_rows;
}

void check_options(const AttentionOptions& options) {
  ops::check_softmax_scale(kOperation, options.softmax_scale);
  TORCH_CHECK_VALUE(!options.softmax_scale || !options.attention, kOperation, ": softmax_scale is ",
                    options.softmax_scale.value_or(0),
                    ", but `attention` is given and scales by itself; leave one out");
  const char* instead = options.selection ? "selection" : "scores";
  TORCH_CHECK_VALUE(!options.gate || !(options.selection || options.scores), kOperation, ": a gate is given, but ",
                    instead, " too, so no scorer is run; leave one out");
}

/// Scores that the caller made, or else the scorer's.
ops::TwoTensors scores_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ops::Sizes& sizes,
                          const AttentionOptions& options) {
  if (!options.scores) return token_scores(q, k, v, options.score_config, options.gate, options.cu_seqlens);
  const auto& [s_qk, s_kq] = *options.scores;
  const std::vector<c10::SymInt> shape{sizes.batch, sizes.num_kv_heads, sizes.seq_len};
  ops::check_shape(kOperation, "s_qk", s_qk, shape, "[batch, num_kv_heads, seq_len]", q);
  ops::check_scores(kOperation, s_qk, s_kq);
  return *options.scores;
}

/// No gradient passes through here.
ops::IndexMaps index_maps(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const ops::Sizes& sizes,
                          const AttentionOptions& options) {
  const at::NoGradGuard no_grad;
  const SelectionConfig& config = options.selection_config;
  if (options.selection) {
    return ops::index_maps_of(kOperation, *options.selection, sizes.seq_len, config, options.cu_seqlens);
  }
  const ops::TwoTensors scores = scores_of(q, k, v, sizes, options);
  const ops::TwoTensors maps = ops::select_entries(std::get<0>(scores), std::get<1>(scores), ops::layout_of(config),
                                                   config.cover_prefix, options.cu_seqlens);
  return {std::get<0>(maps), std::get<1>(maps)};
}

}  // namespace

at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::optional<double> softmax_scale, at::OptionalIntArrayRef cu_seqlens) {
  constexpr const char* kCausal = "causal_attention";
  const ops::Sizes sizes = ops::check_rows(kCausal, q, k, v);
  ops::check_softmax_scale(kCausal, softmax_scale);
  if (!cu_seqlens) return stock_attention(q, k, v, softmax_scale);
  SelectionConfig every_token;
  every_token.num_levels = 1;
  const SequencePlan plan = ops::checked_plan(kCausal, every_token, sizes.seq_len, sizes.batch, cu_seqlens);
  const auto attention = [&](const at::Tensor& q_rows, const at::Tensor& k_rows, const at::Tensor& v_rows) {
    return stock_attention(q_rows, k_rows, v_rows, softmax_scale);
  };
  return attend_documents(attention, q, k, v, rows_of_documents(plan));
}

at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options) {
  const ops::Sizes sizes = ops::check_qkv(kOperation, q, k, v);
  const SequencePlan plan =
      ops::checked_plan(kOperation, options.selection_config, sizes.seq_len, sizes.batch, options.cu_seqlens);
  check_options(options);
  const auto layout = ops::layout_of(options.selection_config);
  const ops::IndexMaps maps = index_maps(q, k, v, sizes, options);
  const auto [q_rows, k_rows, v_rows] =
      ops::gather_rows(q, k, v, maps.selection, maps.slots, layout, options.cu_seqlens);  // [B, H or H_kv, S, D]
  const InnerAttention stock = [&](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
    return stock_attention(queries, keys, values, options.softmax_scale);
  };
  const at::Tensor o_rows = attend_documents(options.attention ? checked(options.attention) : stock, q_rows, k_rows,
                                             v_rows, rows_of_documents(plan));  // [B, H, S, D]
  return ops::scatter_rows(o_rows, maps.selection, maps.slots, sizes.seq_len, layout, options.cu_seqlens);
}

}  // namespace lighthouse

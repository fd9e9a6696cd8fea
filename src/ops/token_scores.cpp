// Section (ii).
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/fmax.h>
#include <ATen/ops/minimum.h>
#include <ATen/ops/searchsorted.h>
#include <ATen/ops/stack.h>

#include <utility>
#include <vector>

#include "calls/checks.h"
#include "ops/aten_context.h"
#include "ops/inner_attention.h"
#include "ops/option_checks.h"

namespace lighthouse {
namespace {

constexpr const char* kTokenScores = "token_scores";
/// `num_classes` neighbouring residue classes of `length` tokens each, in tokens of the row: class c holds the tokens
/// first + c + t * dilation.
struct Classes {
  int64_t first, num_classes, length, dilation;
};

/// The residue classes of [begin, end): those that come first may have a token more than the others.
std::vector<Classes> residue_classes(int64_t begin, int64_t end, int64_t dilation) {
  const int64_t longer = (end - begin) % dilation;
  const int64_t length = (end - begin) / dilation;
  std::vector<Classes> groups;
  if (longer > 0) groups.push_back({begin, longer, length + 1, dilation});
  if (length > 0) groups.push_back({begin + longer, dilation - longer, length, dilation});
  return groups;
}

/// A view of x [N, ...] as [classes, length, ...].
at::Tensor by_class(const at::Tensor& x, const Classes& classes) {
  const int64_t span = (classes.length - 1) * classes.dilation + classes.num_classes;
  return x.narrow(0, classes.first, span).unfold(0, classes.num_classes, classes.dilation).movedim(-1, 0);
}

/// ||SDPA(query, key, value)|| of [batch, length, heads, D] -> [batch, heads, length]; `num_rows` as in
/// stock_attention.
at::Tensor attention_norms(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value,
                           const std::vector<int64_t>& num_rows) {
  const at::Tensor out = ops::stock_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
                                              num_rows, std::nullopt, /*deterministic=*/false);
  return ops::token_norms(out.transpose(1, 2), query.size(2));
}

/// Both scores [batch, H_kv, length] of q [batch, length, H, D], k and v [batch, length, H_kv, D]. Query heads take
/// turns, one of every group at a time, so that keys and values are never copied for each of them.
ops::TwoTensors attention_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                 const std::vector<int64_t>& num_rows) {
  const int64_t group = q.size(2) / k.size(2);
  at::Tensor s_qk;
  at::Tensor s_kq;
  for (int64_t member = 0; member < group; ++member) {
    const at::Tensor query = q.slice(2, member, std::nullopt, group);
    const at::Tensor norms_qk = attention_norms(query, k, v, num_rows);
    const at::Tensor norms_kq = attention_norms(k, query, v, num_rows);
    s_qk = member == 0 ? norms_qk : at::fmax(s_qk, norms_qk);
    s_kq = member == 0 ? norms_kq : at::fmax(s_kq, norms_kq);
  }
  return {std::move(s_qk), std::move(s_kq)};
}

/// Scores [H_kv, end - begin] of the tokens [begin, end) of one row, a document, by views of its residue classes:
/// q [N, H, D], k and v [N, H_kv, D]. Token t is number t / dilation of class t % dilation.
ops::TwoTensors document_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t begin,
                                int64_t end, int64_t dilation) {
  const int64_t longest = ceil_div(end - begin, dilation);
  std::vector<at::Tensor> s_qk;  // [classes, H_kv, longest]
  std::vector<at::Tensor> s_kq;
  for (const Classes& classes : residue_classes(begin, end, dilation)) {
    const auto [qk, kq] =
        attention_scores(by_class(q, classes), by_class(k, classes), by_class(v, classes), {classes.length});
    s_qk.push_back(at::constant_pad_nd(qk, {0, longest - classes.length}));
    s_kq.push_back(at::constant_pad_nd(kq, {0, longest - classes.length}));
  }
  const auto by_token = [&](const std::vector<at::Tensor>& scores) {
    return at::cat(scores).permute({1, 2, 0}).flatten(1).narrow(1, 0, end - begin);
  };
  return {by_token(s_qk), by_token(s_kq)};
}

/// Where every token goes when the residue classes of all documents are laid one after another, int64 [N] on the device
/// of `like`, from tensor operations only. Token t of a document of n tokens is number t / dilation of its class
/// c = t % dilation, and before class c come c classes of n / dilation tokens and min(c, n % dilation) more.
at::Tensor class_positions(const at::Tensor& like, at::IntArrayRef cu_seqlens, int64_t dilation) {
  const at::Tensor offsets = ops::offsets_like(like, cu_seqlens).to(at::kLong);
  const at::Tensor token = at::arange(cu_seqlens.back(), offsets.options());
  const at::Tensor document = at::searchsorted(offsets, token, /*out_int32=*/false, /*right=*/true).sub_(1);
  const at::Tensor begin = offsets.index_select(0, document);
  const at::Tensor length = offsets.index_select(0, document + 1) - begin;
  const at::Tensor local = token - begin;
  const at::Tensor residue = local.remainder(dilation);
  const auto divided = [&](const at::Tensor& x) { return x.floor_divide(dilation); };
  return begin + residue * divided(length) + at::minimum(residue, length.remainder(dilation)) + divided(local);
}

/// Scores of a packed row in two calls of varlen attention for each member of a group of heads, on tokens sorted by
/// class.
ops::TwoTensors dilated_scores_packed(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t dilation,
                                      at::IntArrayRef cu_seqlens) {
  std::vector<int64_t> num_rows;
  for (size_t document = 0; document + 1 < cu_seqlens.size(); ++document) {
    const int64_t length = cu_seqlens[document + 1] - cu_seqlens[document];
    for (int64_t residue = 0; residue < dilation; ++residue) {
      num_rows.push_back((length - residue + dilation - 1) / dilation);
    }
  }
  const at::Tensor positions = class_positions(q, cu_seqlens, dilation);
  const at::Tensor order = at::empty_like(positions).scatter_(
      0, positions, at::arange(cu_seqlens.back(), positions.options()));  // the inverse
  const auto sorted = [&](const at::Tensor& x) { return x.index_select(1, order); };
  const auto [s_qk, s_kq] = attention_scores(sorted(q), sorted(k), sorted(v), num_rows);
  return {s_qk.index_select(2, positions), s_kq.index_select(2, positions)};
}

ops::TwoTensors dilated_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t dilation,
                               const calls::Offsets& cu_seqlens) {
  if (cu_seqlens && q.is_cuda()) {
    return dilated_scores_packed(q, k, v, dilation, {cu_seqlens->data(), cu_seqlens->size()});
  }
  const int64_t single[] = {0, q.size(1)};
  const std::span<const int64_t> bounds = cu_seqlens.value_or(single);
  std::vector<at::Tensor> s_qk;  // [H_kv, N] of each row
  std::vector<at::Tensor> s_kq;
  for (int64_t b = 0; b < q.size(0); ++b) {
    std::vector<at::Tensor> documents_qk;
    std::vector<at::Tensor> documents_kq;
    for (size_t document = 0; document + 1 < bounds.size(); ++document) {
      if (bounds[document] == bounds[document + 1]) continue;
      auto [qk, kq] = document_scores(q[b], k[b], v[b], bounds[document], bounds[document + 1], dilation);
      documents_qk.push_back(std::move(qk));
      documents_kq.push_back(std::move(kq));
    }
    s_qk.push_back(at::cat(documents_qk, 1));
    s_kq.push_back(at::cat(documents_kq, 1));
  }
  return {at::stack(s_qk), at::stack(s_kq)};
}

}  // namespace

ops::TwoTensors ops::token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                  const calls::SharedPlan& plan) {
  const at::NoGradGuard no_grad;
  check_scorer(kTokenScores, config.scorer, config.dilation, gate.has_value());
  if (config.scorer == Scorer::kNorm) return {token_norms(q, k.size(2)), token_norms(k, k.size(2))};
  if (config.scorer == Scorer::kDilated) return dilated_scores(q, k, v, config.dilation, plan->cu_seqlens());
  TORCH_CHECK_VALUE(gate->defined(), kTokenScores,
                    ": gate is an undefined tensor; it must be [batch, seq_len, num_heads]");
  TORCH_CHECK_VALUE(gate->is_floating_point(), kTokenScores, ": gate is ", gate->scalar_type(),
                    "; it must be floating point, a logarithm <= 0");
  return gla_scores(q, k, v, gate->to(at::kFloat), config.dilation, plan);
}

std::tuple<at::Tensor, at::Tensor> token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                                at::OptionalIntArrayRef cu_seqlens) {
  const calls::HeadSizes sizes =
      ops::restate_errors([&] { return calls::check_tokens(kTokenScores, ops::view(q, k, v)); });
  ops::check_scorer(kTokenScores, config.scorer, config.dilation, gate.has_value());
  const calls::SharedPlan plan = ops::plan_of(kTokenScores, {}, sizes.seq_len, sizes.batch, cu_seqlens);
  return ops::token_scores(q, k, v, config, gate, plan);
}

}  // namespace lighthouse

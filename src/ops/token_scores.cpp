// Section (ii).
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/fmax.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <vector>

#include "lighthouse/ops.h"
#include "ops/checks.h"
#include "ops/internal.h"

namespace lighthouse {
namespace {

constexpr const char* kOperation = "token_scores";
constexpr const char* kScorers[] = {"norm", "dilated", "gla"};

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

/// ||SDPA(query, key, value)|| of [classes, length, heads, D] -> [classes, heads, length].
at::Tensor attention_norms(const at::Tensor& query, const at::Tensor& key, const at::Tensor& value) {
  const at::Tensor out =
      at::scaled_dot_product_attention(query.transpose(1, 2), key.transpose(1, 2), value.transpose(1, 2),
                                       /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, /*is_causal=*/true);
  return ops::token_norms(out.transpose(1, 2), query.sym_size(2));
}

/// The head at place `member` of every group, [N, H_kv, D] of x [N, H, D].
at::Tensor group_member(const at::Tensor& x, int64_t member, int64_t group) {
  return x.slice(1, member, std::nullopt, group);
}

/// Both scores of one row: q [N, H, D], k and v [N, H_kv, D], s_qk and s_kq [H_kv, N]. Query heads take turns, one of
/// every group at a time, so that keys and values are never copied for each of them.
void dilated_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Classes& classes,
                    const at::Tensor& s_qk, const at::Tensor& s_kq) {
  const at::Tensor key = by_class(k, classes);
  const at::Tensor value = by_class(v, classes);
  const int64_t group = ops::fixed_size(q, 1) / ops::fixed_size(k, 1);
  at::Tensor max_qk;
  at::Tensor max_kq;
  for (int64_t member = 0; member < group; ++member) {
    const at::Tensor query = by_class(group_member(q, member, group), classes);
    const at::Tensor norms_qk = attention_norms(query, key, value);
    const at::Tensor norms_kq = attention_norms(key, query, value);
    max_qk = member == 0 ? norms_qk : at::fmax(max_qk, norms_qk);
    max_kq = member == 0 ? norms_kq : at::fmax(max_kq, norms_kq);
  }
  by_class(s_qk.t(), classes).copy_(max_qk.transpose(1, 2));
  by_class(s_kq.t(), classes).copy_(max_kq.transpose(1, 2));
}

ops::TwoTensors dilated_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t dilation,
                               const ops::Sizes& sizes, at::OptionalIntArrayRef cu_seqlens) {
  const std::vector<c10::SymInt> shape{sizes.batch, sizes.num_kv_heads, sizes.seq_len};
  at::Tensor s_qk = at::empty_symint(shape, q.options().dtype(at::kFloat));
  at::Tensor s_kq = at::empty_symint(shape, q.options().dtype(at::kFloat));
  const int64_t single[] = {0, sizes.seq_len};
  const at::IntArrayRef bounds = cu_seqlens ? *cu_seqlens : at::IntArrayRef(single);
  for (size_t document = 0; document + 1 < bounds.size(); ++document) {
    for (const Classes& classes : residue_classes(bounds[document], bounds[document + 1], dilation)) {
      for (int64_t b = 0; b < ops::fixed_size(q, 0); ++b) {
        dilated_scores(q[b], k[b], v[b], classes, s_qk[b], s_kq[b]);
      }
    }
  }
  return {s_qk, s_kq};
}

void check_score_config(const ScoreConfig& config, bool has_gate) {
  TORCH_CHECK_VALUE(std::find(std::begin(kScorers), std::end(kScorers), config.scorer) != std::end(kScorers),
                    kOperation, ": scorer is '", config.scorer, "'; it must be norm, dilated or gla");
  TORCH_CHECK_VALUE(config.dilation >= 1, kOperation, ": dilation is ", config.dilation, "; it must be at least 1");
  const bool needs_gate = config.scorer == "gla";
  TORCH_CHECK_VALUE(has_gate || !needs_gate, kOperation,
                    ": scorer is 'gla', but no gate is given; pass the log forget gate [batch, seq_len, num_heads]");
  TORCH_CHECK_VALUE(!has_gate || needs_gate, kOperation, ": a gate is given, but scorer is '", config.scorer,
                    "'; only scorer 'gla' takes one");
}

}  // namespace

std::tuple<at::Tensor, at::Tensor> token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const ScoreConfig& config, const std::optional<at::Tensor>& gate,
                                                at::OptionalIntArrayRef cu_seqlens) {
  const at::NoGradGuard no_grad;
  const ops::Sizes sizes = ops::check_qkv(kOperation, q, k, v);
  check_score_config(config, gate.has_value());
  ops::checked_plan(kOperation, {}, sizes.seq_len, sizes.batch, cu_seqlens);  // for its checks of cu_seqlens
  if (config.scorer == "norm") {
    return {ops::token_norms(q, sizes.num_kv_heads), ops::token_norms(k, sizes.num_kv_heads)};
  }
  if (config.scorer == "dilated") return dilated_scores(q, k, v, config.dilation, sizes, cu_seqlens);
  TORCH_CHECK_VALUE(gate->defined(), kOperation,
                    ": gate is an undefined tensor; it must be [batch, seq_len, num_heads]");
  TORCH_CHECK_VALUE(gate->is_floating_point(), kOperation, ": gate is ", gate->scalar_type(),
                    "; it must be floating point, a logarithm <= 0");
  return ops::gla_scores(q, k, v, gate->to(at::kFloat), config.dilation, cu_seqlens);
}

}  // namespace lighthouse

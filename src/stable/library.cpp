// The operators torch.ops.lighthouse.*: the calls (calls/calls.h) as the Python package loads them. Each is told about
// the gathered sequence by `layout` (layout.h) and `cu_seqlens`, and makes its own plan. Their Meta kernels and
// autograd are Python's (python/lighthouse_attention/operators.py): the stable ABI registers neither.
#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>

#include <string>
#include <tuple>

#include "calls/calls.h"
#include "stable/context.h"
#include "stable/layout.h"

namespace lighthouse::stable {
namespace {

using Integers = torch::headeronly::IntHeaderOnlyArrayRef;
using OptionalIntegers = std::optional<Integers>;
using TwoTensors = std::tuple<Tensor, Tensor>;
using ThreeTensors = std::tuple<Tensor, Tensor, Tensor>;
using FiveTensors = std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor>;

calls::Offsets offsets_of(const OptionalIntegers& cu_seqlens) {
  if (!cu_seqlens) return std::nullopt;
  return std::span(cu_seqlens->data(), cu_seqlens->size());
}

calls::PlanArgument plan_of(Integers layout, const OptionalIntegers& cu_seqlens, int64_t seq_len = 0,
                            bool cover_prefix = true) {
  return plan_argument(std::span(layout.data(), layout.size()), offsets_of(cu_seqlens), seq_len, cover_prefix);
}

calls::Heads heads(const Tensor& q, const Tensor& k, const Tensor& v) { return {view(q), view(k), view(v)}; }

Tensor token_norms(const Tensor& x, int64_t num_kv_heads) {
  StableContext context(x);
  calls::token_norms(context, view(x), num_kv_heads);
  return context.results[0];
}

TwoTensors gla_scores(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate, int64_t dilation,
                      OptionalIntegers cu_seqlens) {
  StableContext context(q);
  calls::gla_scores(context, heads(q, k, v), view(gate), dilation, {SelectionConfig{}, offsets_of(cu_seqlens)});
  return {context.results[0], context.results[1]};
}

TwoTensors select_entries(const Tensor& s_qk, const Tensor& s_kq, Integers layout, bool cover_prefix,
                          OptionalIntegers cu_seqlens) {
  StableContext context(s_qk);
  const Tensor qk = torch::stable::contiguous(s_qk);
  const Tensor kq = torch::stable::contiguous(s_kq);
  calls::select_entries(context, view(qk), view(kq), plan_of(layout, cu_seqlens, 0, cover_prefix));
  return {context.results[0], context.results[1]};
}

Tensor invert_selection(const Tensor& selection, int64_t seq_len, Integers layout, OptionalIntegers cu_seqlens,
                        bool check) {
  StableContext context(selection);
  calls::invert_selection(context, view(selection), plan_of(layout, cu_seqlens, seq_len), check);
  return context.results[0];
}

ThreeTensors gather_rows(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& selection,
                         const Tensor& slots, Integers layout, OptionalIntegers cu_seqlens) {
  StableContext context(q);
  calls::gather_rows(context, heads(q, k, v), {plan_of(layout, cu_seqlens), view(selection), view(slots)});
  return {context.results[0], context.results[1], context.results[2]};
}

ThreeTensors gather_rows_backward(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                  const Tensor& selection, const Tensor& slots, int64_t seq_len, Integers layout,
                                  OptionalIntegers cu_seqlens) {
  StableContext context(dq_rows);
  calls::gather_rows_backward(context, heads(dq_rows, dk_rows, dv_rows),
                              {plan_of(layout, cu_seqlens, seq_len), view(selection), view(slots)});
  return {context.results[0], context.results[1], context.results[2]};
}

calls::TensorView optional_view(const std::optional<Tensor>& x) { return x ? view(*x) : calls::TensorView(); }

Tensor scatter_rows(const Tensor& rows, const Tensor& selection, const Tensor& slots, int64_t seq_len, Integers layout,
                    OptionalIntegers cu_seqlens, const std::optional<Tensor>& carried) {
  StableContext context(rows);
  const calls::TensorView crossing = optional_view(carried);
  calls::scatter_rows(context, view(rows), {plan_of(layout, cu_seqlens, seq_len), view(selection), view(slots)},
                      carried ? &crossing : nullptr);
  return context.results[0];
}

Tensor scatter_rows_backward(const Tensor& dout, const Tensor& selection, const Tensor& slots, Integers layout,
                             OptionalIntegers cu_seqlens, const std::optional<Tensor>& dout_after) {
  StableContext context(dout);
  const calls::TensorView crossing = optional_view(dout_after);
  calls::scatter_rows_backward(context, view(dout), {plan_of(layout, cu_seqlens), view(selection), view(slots)},
                               dout_after ? &crossing : nullptr);
  return context.results[0];
}

Tensor carry_rows(const Tensor& rows, const Tensor& selection, const Tensor& slots, Integers layout,
                  OptionalIntegers cu_seqlens) {
  StableContext context(rows);
  calls::carry_rows(context, view(rows), {plan_of(layout, cu_seqlens), view(selection), view(slots)});
  return context.results[0];
}

FiveTensors gather_by_norm(const Tensor& q, const Tensor& k, const Tensor& v, Integers layout, bool cover_prefix,
                           OptionalIntegers cu_seqlens) {
  StableContext context(q);
  calls::gather_by_norm(context, heads(q, k, v), plan_of(layout, cu_seqlens, 0, cover_prefix));
  const auto& results = context.results;
  return {results[0], results[1], results[2], results[3], results[4]};
}

Tensor offsets_like(const Tensor& like, Integers offsets) {
  StableContext context(like);
  calls::offsets_like(context, view(like), {offsets.data(), offsets.size()});
  return context.results[0];
}

/// `layout` may hold symbols for Python's Meta kernels, as topk is one where it follows from N; kernels get numbers.
struct Operator {
  const char* schema;
  void (*kernel)(StableIValue*, uint64_t, uint64_t);

  std::string name() const { return std::string(schema).substr(0, std::string_view(schema).find('(')); }
};

const Operator kOperators[] = {
    {"_token_norms(Tensor x, SymInt num_kv_heads) -> Tensor", TORCH_BOX(&token_norms)},
    {"_gla_scores(Tensor q, Tensor k, Tensor v, Tensor gate, int dilation, int[]? cu_seqlens) -> "
     "(Tensor s_qk, Tensor s_kq)",
     TORCH_BOX(&gla_scores)},
    {"_select_entries(Tensor s_qk, Tensor s_kq, SymInt[] layout, bool cover_prefix, int[]? cu_seqlens) -> "
     "(Tensor selection, Tensor slots)",
     TORCH_BOX(&select_entries)},
    {"_invert_selection(Tensor selection, SymInt seq_len, SymInt[] layout, int[]? cu_seqlens, bool check=True) -> "
     "Tensor",
     TORCH_BOX(&invert_selection)},
    {"_gather_rows(Tensor q, Tensor k, Tensor v, Tensor selection, Tensor slots, SymInt[] layout, "
     "int[]? cu_seqlens) -> (Tensor q_rows, Tensor k_rows, Tensor v_rows)",
     TORCH_BOX(&gather_rows)},
    {"_gather_rows_backward(Tensor dq_rows, Tensor dk_rows, Tensor dv_rows, Tensor selection, Tensor slots, "
     "SymInt seq_len, SymInt[] layout, int[]? cu_seqlens) -> (Tensor dq, Tensor dk, Tensor dv)",
     TORCH_BOX(&gather_rows_backward)},
    {"_scatter_rows(Tensor rows, Tensor selection, Tensor slots, SymInt seq_len, SymInt[] layout, "
     "int[]? cu_seqlens, Tensor? carried=None) -> Tensor",
     TORCH_BOX(&scatter_rows)},
    {"_scatter_rows_backward(Tensor dout, Tensor selection, Tensor slots, SymInt[] layout, int[]? cu_seqlens, "
     "Tensor? dout_after=None) -> Tensor",
     TORCH_BOX(&scatter_rows_backward)},
    {"_carry_rows(Tensor rows, Tensor selection, Tensor slots, SymInt[] layout, int[]? cu_seqlens) -> Tensor",
     TORCH_BOX(&carry_rows)},
    {"_gather_by_norm(Tensor q, Tensor k, Tensor v, SymInt[] layout, bool cover_prefix, int[]? cu_seqlens) -> "
     "(Tensor q_rows, Tensor k_rows, Tensor v_rows, Tensor selection, Tensor slots)",
     TORCH_BOX(&gather_by_norm)},
    {"_offsets_like(Tensor like, int[] offsets) -> Tensor", TORCH_BOX(&offsets_like)},
};

/// One kernel for every device: a call runs where its arguments are.
void implement(torch::stable::detail::StableLibrary& library) {
  for (const Operator& row : kOperators) library.impl(row.name().c_str(), row.kernel);
}

}  // namespace
}  // namespace lighthouse::stable

STABLE_TORCH_LIBRARY(lighthouse, m) {
  for (const auto& row : lighthouse::stable::kOperators) m.def(row.schema);
}
STABLE_TORCH_LIBRARY_IMPL(lighthouse, CPU, m) { lighthouse::stable::implement(m); }
STABLE_TORCH_LIBRARY_IMPL(lighthouse, CUDA, m) { lighthouse::stable::implement(m); }

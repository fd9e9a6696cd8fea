#include "ops/gathering.h"

#include "ops/aten_context.h"

namespace lighthouse::ops {
namespace {

const float* constants(const char* name, const at::Tensor& values, int64_t count, const at::Tensor& like) {
  TORCH_CHECK_VALUE(values.defined() && values.numel() == count && values.is_contiguous() &&
                        values.scalar_type() == at::kFloat && values.device() == like.device() &&
                        reinterpret_cast<uintptr_t>(values.const_data_ptr()) % 16 == 0,
                    "turned gather: ", name, " must be ", count, " fp32 values on ", like.device(),
                    ", contiguous from a multiple of 16 bytes on");
  return values.const_data_ptr<float>();
}

HeadTurn turn_of(const Rotation& rotation, int64_t seq_len, int64_t head_dim, const at::Tensor& like) {
  const int64_t count = seq_len * head_dim / 2;
  return {constants("cos", rotation.cos, count, like), constants("sin", rotation.sin, count, like), nullptr};
}

}  // namespace

calls::SharedPlan plan_of(const char* operation, const SelectionConfig& config, int64_t seq_len, int64_t batch,
                          at::OptionalIntArrayRef cu_seqlens) {
  return restate_errors([&] { return calls::share_plan(operation, config, seq_len, batch, offsets_of(cu_seqlens)); });
}

at::Tensor token_norms(const at::Tensor& x, int64_t num_kv_heads) {
  return run("lighthouse::_token_norms", x,
             [&](auto& context) { calls::token_norms(context, view(x), num_kv_heads); })[0];
}

TwoTensors gla_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                      int64_t dilation, const calls::SharedPlan& plan) {
  const Results scores = run("lighthouse::_gla_scores", q, [&](auto& context) {
    calls::gla_scores(context, view(q, k, v), view(gate), dilation, plan);
  });
  return {scores[0], scores[1]};
}

Gathering select_entries(const at::Tensor& s_qk, const at::Tensor& s_kq, const calls::SharedPlan& plan) {
  const at::Tensor qk = s_qk.contiguous();
  const at::Tensor kq = s_kq.contiguous();
  const Results maps = run("lighthouse::_select_entries", s_qk,
                           [&](auto& context) { calls::select_entries(context, view(qk), view(kq), plan); });
  return {plan, maps[0], maps[1]};
}

Gathering invert_selection(const char* operation, const at::Tensor& selection, const calls::SharedPlan& plan,
                           bool check) {
  TORCH_CHECK_VALUE(selection.defined(), operation,
                    ": selection is an undefined tensor; it must be [batch, num_kv_heads, gathered_len]");
  const at::Tensor contiguous = selection.contiguous();
  const Results slots = run("lighthouse::_invert_selection", selection,
                            [&](auto& context) { calls::invert_selection(context, view(contiguous), plan, check); });
  return {plan, contiguous, slots[0]};
}

at::Tensor scatter_rows(const at::Tensor& rows, const Gathering& gathering, const at::Tensor& carried) {
  return run("lighthouse::_scatter_rows", rows, [&](auto& context) {
    const calls::TensorView front = carried.defined() ? view(carried) : calls::TensorView{};
    calls::scatter_rows(context, view(rows), view(gathering), carried.defined() ? &front : nullptr);
  })[0];
}

at::Tensor scatter_rows_backward(const at::Tensor& dout, const Gathering& gathering, const at::Tensor& dout_after) {
  return run("lighthouse::_scatter_rows_backward", dout, [&](auto& context) {
    const calls::TensorView behind = dout_after.defined() ? view(dout_after) : calls::TensorView{};
    calls::scatter_rows_backward(context, view(dout), view(gathering), dout_after.defined() ? &behind : nullptr);
  })[0];
}

at::Tensor carry_rows(const at::Tensor& rows, const Gathering& gathering) {
  return run("lighthouse::_carry_rows", rows,
             [&](auto& context) { calls::carry_rows(context, view(rows), view(gathering)); })[0];
}

std::optional<GatheredRows> gather_turned_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                  const Rotation& rotation, const calls::SharedPlan& plan) {
  if (!q.is_cuda()) return std::nullopt;
  const auto turn = [&] { return turn_of(rotation, q.size(1), q.size(3), q); };
  bool turned = false;
  const Results rows = run("lighthouse::_gather_by_norm", q, [&](auto& context) {
    turned = calls::gather_turned_by_norm(context, view(q, k, v), turn, plan);
  });
  if (!turned) return std::nullopt;
  return GatheredRows{{rows[0], rows[1], rows[2]}, {plan, rows[3], rows[4]}};
}

std::optional<at::Tensor> gather_rows_backward_turned(const Rows& rows, const Gathering& gathering,
                                                      const Rotation& rotation, const at::Tensor& row_scale) {
  if (!rows.q.is_cuda()) return std::nullopt;
  const int64_t seq_len = gathering.plan->sequence().seq_len;
  const auto turn = [&] {
    HeadTurn back = turn_of(rotation, seq_len, rows.q.size(3), rows.q);
    back.row_scale = constants("row_scale", row_scale, rows.q.size(0) * seq_len, rows.q);
    return back;
  };
  bool turned = false;
  const Results packed = run("lighthouse::_gather_rows_backward", rows.q, [&](auto& context) {
    turned = calls::gather_rows_backward_turned(context, view(rows.q, rows.k, rows.v), turn, view(gathering));
  });
  if (!turned) return std::nullopt;
  return packed[0];
}

at::Tensor offsets_like(const at::Tensor& like, at::IntArrayRef offsets) {
  return run("lighthouse::_offsets_like", like, [&](auto& context) {
    calls::offsets_like(context, view(like), {offsets.data(), offsets.size()});
  })[0];
}

}  // namespace lighthouse::ops

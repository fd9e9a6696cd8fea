// Section (vi) and its adjoint.
#include "lighthouse/scatter.h"

#include "calls/checks.h"
#include "calls/run.h"
#include "calls/select.h"

namespace lighthouse::calls {

void scatter_rows(CallContext& context, const TensorView& rows, const GatheringView& gathering) {
  scatter_rows(context, rows, gathering, nullptr);
}

void scatter_rows_backward(CallContext& context, const TensorView& dout, const GatheringView& gathering) {
  scatter_rows_backward(context, dout, gathering, nullptr);
}

namespace {

/// What rows follow that are scattered or carried, once it is known that they do.
struct Followed {
  const CallPlan& plan;
  int64_t num_kv_heads;
};
Followed followed_by(const char* operation, const TensorView& rows, const GatheringView& gathering) {
  check_heads(operation, "rows", rows);
  const CallPlan& plan = gathering.plan.get(operation, rows.size(0));
  check_num_rows(operation, rows.size(2), plan.sequence());
  const int64_t num_kv_heads = kv_heads_of(operation, gathering.selection, rows.size(1));
  check_maps(operation, plan, gathering, rows.size(0), num_kv_heads, rows);
  return {plan, num_kv_heads};
}

}  // namespace

void scatter_rows(CallContext& context, const TensorView& rows, const GatheringView& gathering,
                  const TensorView* carried) {
  constexpr const char* kOperation = "scatter";
  const Followed followed = followed_by(kOperation, rows, gathering);
  const CallPlan& plan = followed.plan;
  const SequencePlan& sequence = plan.sequence();
  const TensorView out = context.result({rows.size(0), sequence.seq_len, rows.size(1), rows.size(3)}, rows.element);
  ScatterParams params{by_row(rows), to_token(out), gathering.slots.integers(), &sequence,   stage_dtype(rows.element),
                       rows.size(0), rows.size(1),  followed.num_kv_heads,      rows.size(3)};
  if (carried != nullptr) {
    const int64_t shape[] = {rows.size(0), sequence.config.num_levels - 1, rows.size(1), rows.size(3)};
    check_shape(kOperation, "carried", *carried, shape, "[batch, num_levels - 1, num_heads, head_dim]", rows);
    params.carried = by_token(*carried);
  }
  run_on(
      rows.device, [&] { lighthouse::scatter_rows(params, plan.on_device(context), context.stream()); },
      [&] { lighthouse::scatter_rows(params, cpu_threads(context)); });
}

void scatter_rows_backward(CallContext& context, const TensorView& dout, const GatheringView& gathering,
                           const TensorView* dout_after) {
  constexpr const char* kOperation = "scatter backward";
  check_heads(kOperation, "dout", dout);
  const CallPlan& plan = gathering.plan.get(kOperation, dout.size(0), dout.size(1));
  const SequencePlan& sequence = plan.sequence();
  const int64_t num_kv_heads = kv_heads_of(kOperation, gathering.selection, dout.size(2));
  check_maps(kOperation, plan, gathering, dout.size(0), num_kv_heads, dout);
  const TensorView rows =
      context.result({dout.size(0), dout.size(2), sequence.gathered_len, dout.size(3)}, dout.element);
  ScatterBackwardParams params{by_token(dout),
                               to_row(rows),
                               gathering.selection.integers(),
                               &sequence,
                               stage_dtype(dout.element),
                               dout.size(0),
                               dout.size(2),
                               num_kv_heads,
                               dout.size(3)};
  if (dout_after != nullptr) {
    const int64_t shape[] = {dout.size(0), sequence.documents.back().tokens_after, dout.size(2), dout.size(3)};
    check_shape(kOperation, "dout_after", *dout_after, shape, "[batch, tokens after, num_heads, head_dim]", dout);
    params.dout_after = by_token(*dout_after);
  }
  run_on(
      dout.device,
      [&] {
        lighthouse::scatter_rows_backward(params, gathering.slots.integers(), plan.on_device(context),
                                          context.stream());
      },
      [&] { lighthouse::scatter_rows_backward(params, cpu_threads(context)); });
}

void carry_rows(CallContext& context, const TensorView& rows, const GatheringView& gathering) {
  const auto [plan, num_kv_heads] = followed_by("carry", rows, gathering);
  const SequencePlan& sequence = plan.sequence();
  const TensorView carried =
      context.result({rows.size(0), sequence.config.num_levels - 1, rows.size(1), rows.size(3)}, rows.element);
  const CarryParams params{by_row(rows),
                           to_token(carried),
                           gathering.slots.integers(),
                           &sequence,
                           stage_dtype(rows.element),
                           rows.size(0),
                           rows.size(1),
                           num_kv_heads,
                           rows.size(3)};
  run_on(
      rows.device, [&] { lighthouse::carry_rows(params, context.stream()); },
      [&] { lighthouse::carry_rows(params, cpu_threads(context)); });
}

}  // namespace lighthouse::calls

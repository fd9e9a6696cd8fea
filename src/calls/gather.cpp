// Sections (i) to (iv): gather, its adjoint, and both with the norm scorer and RoPE as part of them.
#include "lighthouse/gather.h"

#include "calls/checks.h"
#include "calls/run.h"
#include "calls/select.h"

namespace lighthouse::calls {
namespace {

/// The members that gather and its adjoint share.
template <typename Params>
Params common_params(Element element, const HeadSizes& sizes, const CallPlan& plan) {
  Params params{};
  params.plan = &plan.sequence();
  params.dtype = stage_dtype(element);
  params.batch = sizes.batch;
  params.num_heads = sizes.num_heads;
  params.num_kv_heads = sizes.num_kv_heads;
  params.head_dim = sizes.head_dim;
  return params;
}

GatherParams gather_params(const Heads& x, const HeadSizes& sizes, const CallPlan& plan) {
  auto params = common_params<GatherParams>(x.q.element, sizes, plan);
  params.q = by_token(x.q);
  params.k = by_token(x.k);
  params.v = by_token(x.v);
  return params;
}

/// Three results.
void make_rows(CallContext& context, Element element, GatherParams& params) {
  const auto rows = [&](int64_t heads) {
    return to_row(context.result({params.batch, heads, params.plan->gathered_len, params.head_dim}, element));
  };
  params.q_rows = rows(params.num_heads);
  params.k_rows = rows(params.num_kv_heads);
  params.v_rows = rows(params.num_kv_heads);
}

GatherBackwardParams gather_backward_params(const Heads& rows, const HeadSizes& sizes, const CallPlan& plan,
                                            const TensorView& slots) {
  auto params = common_params<GatherBackwardParams>(rows.q.element, sizes, plan);
  params.dq_rows = by_row(rows.q);
  params.dk_rows = by_row(rows.k);
  params.dv_rows = by_row(rows.v);
  params.slots = slots.integers();
  return params;
}

struct BackwardCall {
  HeadSizes sizes;
  const CallPlan& plan;
};
BackwardCall check_gather_backward(const Heads& rows, const GatheringView& gathering) {
  constexpr const char* kOperation = "gather backward";
  const HeadSizes sizes = check_rows(kOperation, rows);
  const CallPlan& plan = gathering.plan.get(kOperation, sizes.batch);
  check_num_rows(kOperation, sizes.seq_len, plan.sequence());
  check_maps(kOperation, plan, gathering, sizes.batch, sizes.num_kv_heads, rows.q);
  return {sizes, plan};
}

/// One pass for norms, maxima and the coarsest means; gather then reads what was expanded only.
void gather_in_one_pass(CallContext& context, const GatherParams& params, int64_t element_bytes, const HeadTurn& turn,
                        const CallPlan& plan, const IndexMaps& maps) {
  if constexpr (kWithCuda) {
    const auto& [q, k, v, q_rows, k_rows, v_rows, selection, sequence, dtype, batch, num_heads, num_kv_heads,
                 head_dim] = params;
    const DevicePlan on_device = plan.on_device(context);
    // Few allocations: at short lengths they are a good part of the time.
    const int64_t q_maxima = batch * num_heads * on_device.num_maxima;
    const int64_t k_maxima = batch * num_kv_heads * on_device.num_maxima;
    float* maxima = context.floats(q_maxima + k_maxima);
    float* workspace =
        context.floats(pool_workspace_elements(on_device, batch, num_heads, num_kv_heads, head_dim, dtype));
    int32_t* expanded = context.integers(batch * num_kv_heads * on_device.num_expanded);
    const int64_t head_means = batch * on_device.num_coarse * head_dim * element_bytes;
    auto* const q_means = static_cast<std::byte*>(context.scratch((num_heads + 2 * num_kv_heads) * head_means));
    auto* const k_means = q_means + num_heads * head_means;
    auto* const v_means = k_means + num_kv_heads * head_means;
    pool_and_score({q, k, v, dtype, batch, num_heads, num_kv_heads, head_dim, maxima, maxima + q_maxima, q_means,
                    k_means, v_means, workspace, turn},
                   on_device, context.stream());
    select_maxima(context,
                  {maxima, maxima + q_maxima, batch, num_heads, num_kv_heads, maps.selection, maps.slots, expanded,
                   /*workspace=*/nullptr},
                  plan, on_device);
    lighthouse::gather_rows(params, maps.slots, {q_means, k_means, v_means, expanded}, on_device, context.stream(),
                            turn);
  }
}

void gather_selected(CallContext& context, const Device& device, const GatherParams& params, const int32_t* slots,
                     const CallPlan& plan) {
  run_on(
      device, [&] { lighthouse::gather_rows(params, slots, {}, plan.on_device(context), context.stream()); },
      [&] { lighthouse::gather_rows(params, cpu_threads(context)); });
}

/// What the one pass does not take: norms of every token, selection, gather.
void gather_in_steps(CallContext& context, const Heads& x, const GatherParams& params, const CallPlan& plan,
                     const IndexMaps& maps) {
  const int64_t seq_len = plan.sequence().seq_len;
  const auto norms_of = [&](const TensorView& heads) {
    float* score = context.floats(params.batch * params.num_kv_heads * seq_len);
    const TokenNormParams norms{by_token(heads),
                                params.dtype,
                                params.batch,
                                seq_len,
                                heads.size(2),
                                params.num_kv_heads,
                                params.head_dim,
                                score,
                                params.num_kv_heads * seq_len,
                                seq_len,
                                1};
    run_on(
        heads.device, [&] { lighthouse::token_norms(norms, context.stream()); },
        [&] { lighthouse::token_norms(norms, cpu_threads(context)); });
    return score;
  };
  const float* s_qk = norms_of(x.q);
  const float* s_kq = norms_of(x.k);
  select_by_scores(context, x.q.device, {s_qk, s_kq, params.batch, params.num_kv_heads}, plan, maps);
  gather_selected(context, x.q.device, params, maps.slots, plan);
}

constexpr const char* kByNorm = "lighthouse_attention";  // what the user called

}  // namespace

void gather_rows(CallContext& context, const Heads& x, const GatheringView& gathering) {
  constexpr const char* kOperation = "gather";
  const HeadSizes sizes = check_tokens(kOperation, x);
  const CallPlan& plan = gathering.plan.get(kOperation, sizes.batch, sizes.seq_len);
  check_maps(kOperation, plan, gathering, sizes.batch, sizes.num_kv_heads, x.q);
  GatherParams params = gather_params(x, sizes, plan);
  make_rows(context, x.q.element, params);
  params.selection = gathering.selection.integers();
  gather_selected(context, x.q.device, params, gathering.slots.integers(), plan);
}

void gather_rows_backward(CallContext& context, const Heads& rows, const GatheringView& gathering) {
  const auto& [sizes, plan] = check_gather_backward(rows, gathering);
  GatherBackwardParams params = gather_backward_params(rows, sizes, plan, gathering.slots);
  const auto tokens = [&](int64_t heads) {
    return to_token(context.result({params.batch, params.plan->seq_len, heads, params.head_dim}, rows.q.element));
  };
  params.dq = tokens(sizes.num_heads);
  params.dk = tokens(sizes.num_kv_heads);
  params.dv = tokens(sizes.num_kv_heads);
  run_on(
      rows.q.device,
      [&, &plan = plan] { lighthouse::gather_rows_backward(params, plan.on_device(context), context.stream()); },
      [&] { lighthouse::gather_rows_backward(params, cpu_threads(context)); });
}

void gather_by_norm(CallContext& context, const Heads& x, const PlanArgument& plan) {
  const HeadSizes sizes = check_tokens(kByNorm, x);
  const CallPlan& followed = plan.get(kByNorm, sizes.batch, sizes.seq_len);
  GatherParams params = gather_params(x, sizes, followed);
  make_rows(context, x.q.element, params);
  const IndexMaps maps = make_maps(context, followed, sizes.batch, sizes.num_kv_heads);
  params.selection = maps.selection;
  if constexpr (kWithCuda) {
    if (x.q.device.is_cuda() && !followed.sequence().is_full() &&
        can_pool_and_score(params.q, params.k, params.v, params.dtype, params.head_dim)) {
      return gather_in_one_pass(context, params, bytes_of(x.q.element), {}, followed, maps);
    }
  }
  gather_in_steps(context, x, params, followed, maps);
}

bool gather_turned_by_norm(CallContext& context, const Heads& x, const MakeTurn& turn, const PlanArgument& plan) {
  if (!kWithCuda || !x.q.device.is_cuda()) return false;
  if constexpr (kWithCuda) {
    const HeadSizes sizes = check_tokens(kByNorm, x);
    const CallPlan& followed = plan.get(kByNorm, sizes.batch, sizes.seq_len);
    GatherParams params = gather_params(x, sizes, followed);
    if (!can_turn_tokens(params)) return false;
    make_rows(context, x.q.element, params);
    const IndexMaps maps = make_maps(context, followed, sizes.batch, sizes.num_kv_heads);
    params.selection = maps.selection;
    gather_in_one_pass(context, params, bytes_of(x.q.element), turn(), followed, maps);
  }
  return true;
}

bool gather_rows_backward_turned(CallContext& context, const Heads& rows, const MakeTurn& turn,
                                 const GatheringView& gathering) {
  if (!kWithCuda || !rows.q.device.is_cuda()) return false;
  if constexpr (kWithCuda) {
    const auto& [sizes, plan] = check_gather_backward(rows, gathering);
    GatherBackwardParams params = gather_backward_params(rows, sizes, plan, gathering.slots);
    const TensorView packed = context.result(
        {sizes.batch, params.plan->seq_len, sizes.num_heads + 2 * sizes.num_kv_heads, sizes.head_dim}, rows.q.element);
    const auto heads_from = [&](int64_t head) {
      View heads = to_token(packed);
      heads.data = static_cast<std::byte*>(heads.data) + head * heads.head_stride * bytes_of(rows.q.element);
      return heads;
    };
    params.dq = heads_from(0);
    params.dk = heads_from(sizes.num_heads);
    params.dv = heads_from(sizes.num_heads + sizes.num_kv_heads);
    if (!can_turn_gradients(params)) return false;
    lighthouse::gather_rows_backward(params, plan.on_device(context), context.stream(), turn());
  }
  return true;
}

}  // namespace lighthouse::calls

#include "ops/one_pass_gather.h"

#include <cstddef>
#include <utility>

namespace lighthouse::ops {

void select_on_device(CudaCall& call, SelectMaximaParams params, const SequencePlan& plan,
                      const DevicePlan& on_device) {
  params.workspace = call.integers(select_workspace_elements(plan, params.batch, params.num_kv_heads));
  select_entries(params, plan, on_device, call.stream());
}

void gather_in_one_pass(const GatherParams& params, const Tensor& like, const HeadTurn& turn,
                        GatherByNormCall& prepared) {
  const auto& [q, k, v, q_rows, k_rows, v_rows, selection, host_plan, dtype, batch, num_heads, num_kv_heads, head_dim] =
      params;
  restate_cuda_errors([&] {
    CudaCall call(like);
    const DevicePlan plan = call.plan(prepared.rows.plan);
    // Few allocations: at short lengths they are a good part of the time.
    const int64_t q_maxima = batch * num_heads * plan.num_maxima;
    const int64_t k_maxima = batch * num_kv_heads * plan.num_maxima;
    float* maxima = call.floats(q_maxima + k_maxima);
    float* workspace = call.floats(pool_workspace_elements(plan, batch, num_heads, num_kv_heads, head_dim, dtype));
    int32_t* expanded = call.integers(batch * num_kv_heads * plan.num_expanded);
    const int64_t head_means = batch * plan.num_coarse * head_dim;
    const Tensor means = empty({(num_heads + 2 * num_kv_heads) * head_means}, like);
    const auto element_size = static_cast<int64_t>(like.element_size());
    auto* const q_means = static_cast<std::byte*>(means.mutable_data_ptr());
    auto* const k_means = q_means + num_heads * head_means * element_size;
    auto* const v_means = k_means + num_kv_heads * head_means * element_size;
    pool_and_score({q, k, v, dtype, batch, num_heads, num_kv_heads, head_dim, maxima, maxima + q_maxima, q_means,
                    k_means, v_means, workspace, turn},
                   plan, call.stream());
    auto* const slots = prepared.slots.mutable_data_ptr<int32_t>();
    select_on_device(call,
                     {maxima, maxima + q_maxima, batch, num_heads, num_kv_heads,
                      prepared.selection.mutable_data_ptr<int32_t>(), slots, expanded, nullptr},
                     prepared.rows.plan, plan);
    gather_rows(params, slots, {q_means, k_means, v_means, expanded}, plan, call.stream(), turn);
  });
}

SelectedRows selected_rows(GatherByNormCall& prepared) {
  return {std::move(prepared.rows.q), std::move(prepared.rows.k), std::move(prepared.rows.v),
          std::move(prepared.selection), std::move(prepared.slots)};
}

}  // namespace lighthouse::ops

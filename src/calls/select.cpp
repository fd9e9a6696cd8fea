// Sections (iii) and (iv).
#include "calls/select.h"

#include "calls/calls.h"
#include "calls/checks.h"
#include "calls/cuda_memory.h"
#include "calls/run.h"
#include "lighthouse/forest.h"
#include "lighthouse/select.h"

namespace lighthouse::calls {

namespace {
constexpr const char* kSelectionShape = "[batch, num_kv_heads, gathered_len]";
}

void check_maps(const char* operation, const CallPlan& plan, const GatheringView& maps, int64_t batch,
                int64_t num_kv_heads, const TensorView& like) {
  check_index_array(operation, "selection", maps.selection, {batch, num_kv_heads, plan.sequence().gathered_len},
                    kSelectionShape, like);
  check_index_array(operation, "slots", maps.slots, {batch, num_kv_heads, plan.sequence().num_slots},
                    "[batch, num_kv_heads, num_slots]", like);
}

void check_num_rows(const char* operation, int64_t num_rows, const SequencePlan& plan) {
  LIGHTHOUSE_CHECK(num_rows == plan.gathered_len, operation, ": there are ", num_rows, " rows, but ", plan.seq_len,
                   " tokens gather ", plan.gathered_len,
                   " with this configuration; pass the configuration and cu_seqlens that the rows were gathered with");
}

int64_t kv_heads_of(const char* operation, const TensorView& selection, int64_t num_heads) {
  LIGHTHOUSE_CHECK(selection.dim() == 3, operation, ": selection has ", selection.dim(), " dimensions; it must be ",
                   kSelectionShape);
  check_group(operation, num_heads, selection.size(1));
  return selection.size(1);
}

IndexMaps make_maps(CallContext& context, const CallPlan& plan, int64_t batch, int64_t num_kv_heads) {
  const TensorView selection = context.result({batch, num_kv_heads, plan.sequence().gathered_len}, Element::kInt32);
  const TensorView slots = context.result({batch, num_kv_heads, plan.sequence().num_slots}, Element::kInt32);
  return {selection.integers(), slots.integers()};
}

void select_maxima(CallContext& context, SelectMaximaParams params, const CallPlan& plan, const DevicePlan& on_device) {
  if constexpr (kWithCuda) {
    const SequencePlan& sequence = plan.sequence();
    params.workspace = context.integers(select_workspace_elements(sequence, params.batch, params.num_kv_heads));
    lighthouse::select_entries(params, sequence, on_device, context.stream());
  }
}

void select_by_scores(CallContext& context, const Device& device, const TokenScores& scores, const CallPlan& plan,
                      const IndexMaps& maps) {
  const auto& [s_qk, s_kq, batch, num_kv_heads] = scores;
  const auto on_cuda = [&, s_qk = s_qk, s_kq = s_kq, batch = batch, num_kv_heads = num_kv_heads] {
    const DevicePlan on_device = plan.on_device(context);
    float* max_qk = context.floats(batch * num_kv_heads * on_device.num_maxima);
    float* max_kq = context.floats(batch * num_kv_heads * on_device.num_maxima);
    pool_scores({s_qk, s_kq, batch, num_kv_heads, max_qk, max_kq}, on_device, context.stream());
    select_maxima(
        context,
        {max_qk, max_kq, batch, num_kv_heads, num_kv_heads, maps.selection, maps.slots, /*expanded=*/nullptr, nullptr},
        plan, on_device);
  };
  const SelectParams params{s_qk, s_kq, &plan.sequence(), batch, num_kv_heads, maps.selection, maps.slots};
  run_on(device, on_cuda, [&] { lighthouse::select_entries(params, cpu_threads(context)); });
}

void select_entries(CallContext& context, const TensorView& s_qk, const TensorView& s_kq, const PlanArgument& plan) {
  constexpr const char* kOperation = "select";
  check_scores(kOperation, s_qk, s_kq);
  check_device(kOperation, "s_qk", s_qk);
  const CallPlan& followed = plan.get(kOperation, s_qk.size(0), s_qk.size(2));
  const IndexMaps maps = make_maps(context, followed, s_qk.size(0), s_qk.size(1));
  select_by_scores(context, s_qk.device, {s_qk.floats(), s_kq.floats(), s_qk.size(0), s_qk.size(1)}, followed, maps);
}

namespace {

/// What is wrong with a selection is said by the CPU.
void invert_on_cpu(CallContext& context, const InvertSelectionParams& params, bool check) {
  const ParallelFor& threads = cpu_threads(context);
  if (check) check_selection({params.selection, params.plan, params.batch, params.num_kv_heads}, threads);
  lighthouse::invert_selection(params, threads);
}

/// Whether all values were right is read back, the one copy to the host of all calls.
void invert_on_cuda(CallContext& context, const InvertSelectionParams& params, const CallPlan& plan, bool check) {
  if constexpr (kWithCuda) {
    const CudaStream stream = context.stream();
    const bool is_checked = check && !is_capturing(stream);
    int32_t* num_errors = is_checked ? zeroed(context.integers(1), stream) : nullptr;
    lighthouse::invert_selection(
        InvertParams{params.selection, params.batch, params.num_kv_heads, params.slots, num_errors},
        plan.on_device(context), stream);
    if (!is_checked || read_back(num_errors, 1, stream)[0] == 0) return;
    const int64_t num_heads = params.batch * params.num_kv_heads;
    const auto selection = read_back(params.selection, num_heads * params.plan->gathered_len, stream);
    std::vector<int32_t> slots(static_cast<size_t>(num_heads * params.plan->num_slots));
    invert_on_cpu(context, {selection.data(), params.plan, params.batch, params.num_kv_heads, slots.data()}, check);
    throw std::runtime_error("selection was changed by another stream while it was checked");
  }
}

}  // namespace

void invert_selection(CallContext& context, const TensorView& selection, const PlanArgument& plan, bool check) {
  constexpr const char* kOperation = "selection";
  LIGHTHOUSE_CHECK(selection.dim() == 3, kOperation, " has ", selection.dim(), " dimensions; it must be ",
                   kSelectionShape);
  const int64_t batch = selection.size(0);
  const int64_t num_kv_heads = selection.size(1);
  const CallPlan& followed = plan.get(kOperation, batch);
  const SequencePlan& sequence = followed.sequence();
  check_index_array(kOperation, "selection", selection, {batch, num_kv_heads, sequence.gathered_len}, kSelectionShape,
                    selection);
  check_device(kOperation, "selection", selection);
  const TensorView slots = context.result({batch, num_kv_heads, sequence.num_slots}, Element::kInt32);
  const InvertSelectionParams params{selection.integers(), &sequence, batch, num_kv_heads, slots.integers()};
  run_on(
      selection.device, [&] { invert_on_cuda(context, params, followed, check); },
      [&] { invert_on_cpu(context, params, check); });
}

}  // namespace lighthouse::calls

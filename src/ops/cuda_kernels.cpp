// CUDA kernels: the stages on the memory of tensors, on the current stream.
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <torch/library.h>

#include <cstddef>
#include <utility>
#include <vector>

#include "cuda/upload.h"
#include "lighthouse/cuda_stages.h"
#include "ops/cuda_call.h"
#include "ops/stage_params.h"

namespace lighthouse::ops {
namespace {

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
at::Tensor token_norms_cuda(const at::Tensor& x, c10::SymInt num_kv_heads) {
  at::Tensor score = prepare_token_norms(x, num_kv_heads);
  const CudaCall call(x);
  restate_cuda_errors([&] { token_norms(token_norm_params(x, score), call.stream()); });
  return score;
}

TwoTensors gla_scores_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& gate,
                           int64_t dilation, at::OptionalIntArrayRef cu_seqlens) {
  GlaScoresCall prepared = prepare_gla_scores(q, k, v, gate, dilation, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(q);
    const GlaScoreParams params = gla_score_params(q, k, v, gate, dilation, cu_seqlens, prepared);
    const int32_t* bounds = nullptr;
    if (cu_seqlens) bounds = call.uploaded(std::vector<int32_t>(cu_seqlens->begin(), cu_seqlens->end()));
    float* workspace = call.floats(gla_workspace_elements(params.batch, params.seq_len, params.num_heads,
                                                          params.head_dim, dilation, params.dtype));
    gla_scores(params, bounds, workspace, call.stream());
  });
  return {std::move(prepared.s_qk), std::move(prepared.s_kq)};
}

/// Both index arrays from the maxima of a call.
void select_on_device(CudaCall& call, SelectMaximaParams params, const SequencePlan& plan,
                      const DevicePlan& on_device) {
  params.workspace = call.integers(select_workspace_elements(plan, params.batch, params.num_kv_heads));
  select_entries(params, plan, on_device, call.stream());
}

TwoTensors select_entries_cuda(const at::Tensor& s_qk, const at::Tensor& s_kq, at::IntArrayRef layout,
                               bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  SelectCall prepared = prepare_select_entries(s_qk, s_kq, layout, cover_prefix, cu_seqlens);
  const at::Tensor qk = s_qk.contiguous();
  const at::Tensor kq = s_kq.contiguous();
  const int64_t batch = s_qk.size(0);
  const int64_t num_kv_heads = s_qk.size(1);
  restate_cuda_errors([&] {
    CudaCall call(s_qk);
    const DevicePlan plan = call.plan(prepared.plan);
    float* max_qk = call.floats(batch * num_kv_heads * plan.num_maxima);
    float* max_kq = call.floats(batch * num_kv_heads * plan.num_maxima);
    pool_scores({qk.const_data_ptr<float>(), kq.const_data_ptr<float>(), batch, num_kv_heads, max_qk, max_kq}, plan,
                call.stream());
    select_on_device(call,
                     {max_qk, max_kq, batch, num_kv_heads, num_kv_heads, prepared.selection.mutable_data_ptr<int32_t>(),
                      prepared.slots.mutable_data_ptr<int32_t>(), nullptr, nullptr},
                     prepared.plan, plan);
  });
  return {std::move(prepared.selection), std::move(prepared.slots)};
}

/// Whether all values were right is read back, the one copy to the host of all operators; while a CUDA graph is
/// captured they are trusted. The CPU then says which value was wrong.
at::Tensor invert_selection_cuda(const at::Tensor& selection, c10::SymInt seq_len, at::IntArrayRef layout,
                                 at::OptionalIntArrayRef cu_seqlens) {
  InvertSelectionCall prepared = prepare_invert_selection(selection, seq_len, layout, cu_seqlens);
  const at::Tensor num_errors = at::zeros({1}, selection.options());
  restate_cuda_errors([&] {
    CudaCall call(selection);
    invert_selection(InvertParams{selection.const_data_ptr<int32_t>(), selection.size(0), selection.size(1),
                                  prepared.slots.mutable_data_ptr<int32_t>(), num_errors.mutable_data_ptr<int32_t>()},
                     call.plan(prepared.plan), call.stream());
  });
  const bool capturing = c10::cuda::currentStreamCaptureStatusMayInitCtx() != c10::cuda::CaptureStatus::None;
  if (!capturing && num_errors.item<int32_t>() > 0) {
    invert_selection(selection.cpu(), std::move(seq_len), layout, cu_seqlens);
    TORCH_CHECK(false, "selection was changed by another stream while it was checked");
  }
  return prepared.slots;
}

ThreeTensors gather_rows_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              const at::Tensor& selection, const at::Tensor& slots, at::IntArrayRef layout,
                              at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall prepared = prepare_gather_rows(q, k, v, selection, slots, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(q);
    gather_rows(gather_params(q, k, v, selection, prepared), slots.const_data_ptr<int32_t>(), {},
                call.plan(prepared.plan), call.stream());
  });
  return {std::move(prepared.q), std::move(prepared.k), std::move(prepared.v)};
}

ThreeTensors gather_rows_backward_cuda(const at::Tensor& dq_rows, const at::Tensor& dk_rows, const at::Tensor& dv_rows,
                                       const at::Tensor& selection, const at::Tensor& slots, c10::SymInt seq_len,
                                       at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  ThreeTensorsCall prepared =
      prepare_gather_rows_backward(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(dq_rows);
    gather_rows_backward(gather_backward_params(dq_rows, dk_rows, dv_rows, slots, prepared), call.plan(prepared.plan),
                         call.stream());
  });
  return {std::move(prepared.q), std::move(prepared.k), std::move(prepared.v)};
}

at::Tensor scatter_rows_cuda(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                             c10::SymInt seq_len, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  OneTensorCall prepared = prepare_scatter_rows(rows, selection, slots, seq_len, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(rows);
    scatter_rows(scatter_params(rows, slots, prepared), call.plan(prepared.plan), call.stream());
  });
  return prepared.out;
}

at::Tensor scatter_rows_backward_cuda(const at::Tensor& dout, const at::Tensor& selection, const at::Tensor& slots,
                                      at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  OneTensorCall prepared = prepare_scatter_rows_backward(dout, selection, slots, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(dout);
    scatter_rows_backward(scatter_backward_params(dout, selection, prepared), slots.const_data_ptr<int32_t>(),
                          call.plan(prepared.plan), call.stream());
  });
  return prepared.out;
}

/// One pass over q, k and v for norms, maxima and the coarsest means; gather then reads what was expanded only.
SelectedRows gather_by_norm_cuda(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, at::IntArrayRef layout,
                                 bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  GatherByNormCall prepared = prepare_gather_by_norm(q, k, v, layout, cover_prefix, cu_seqlens);
  const int64_t batch = q.size(0);
  const int64_t num_heads = q.size(2);
  const int64_t num_kv_heads = k.size(2);
  const int64_t head_dim = q.size(3);
  if (layout[0] == 1 || !can_pool_and_score(by_token(q), by_token(k), by_token(v), stage_dtype(q), head_dim)) {
    return gather_by_norm_composed(q, k, v, layout, cover_prefix, cu_seqlens);
  }
  restate_cuda_errors([&] {
    CudaCall call(q);
    const DevicePlan plan = call.plan(prepared.rows.plan);
    const GatherParams gather = gather_params(q, k, v, prepared.selection, prepared.rows);
    // Few allocations: at short lengths they are a good part of the time.
    const int64_t q_maxima = batch * num_heads * plan.num_maxima;
    const int64_t k_maxima = batch * num_kv_heads * plan.num_maxima;
    float* maxima = call.floats(q_maxima + k_maxima);
    float* workspace =
        call.floats(pool_workspace_elements(plan, batch, num_heads, num_kv_heads, head_dim, gather.dtype));
    int32_t* expanded = call.integers(batch * num_kv_heads * plan.num_expanded);
    const int64_t head_means = batch * plan.num_coarse * head_dim;
    const at::Tensor means = at::empty({(num_heads + 2 * num_kv_heads) * head_means}, q.options());
    auto* const q_means = static_cast<std::byte*>(means.mutable_data_ptr());
    auto* const k_means = q_means + num_heads * head_means * q.element_size();
    auto* const v_means = k_means + num_kv_heads * head_means * q.element_size();
    pool_and_score({gather.q, gather.k, gather.v, gather.dtype, batch, num_heads, num_kv_heads, head_dim, maxima,
                    maxima + q_maxima, q_means, k_means, v_means, workspace},
                   plan, call.stream());
    select_on_device(
        call,
        {maxima, maxima + q_maxima, batch, num_heads, num_kv_heads, prepared.selection.mutable_data_ptr<int32_t>(),
         prepared.slots.mutable_data_ptr<int32_t>(), expanded, nullptr},
        prepared.rows.plan, plan);
    gather_rows(gather, prepared.slots.const_data_ptr<int32_t>(), {q_means, k_means, v_means, expanded}, plan,
                call.stream());
  });
  return {std::move(prepared.rows.q), std::move(prepared.rows.k), std::move(prepared.rows.v),
          std::move(prepared.selection), std::move(prepared.slots)};
}

at::Tensor offsets_like_cuda(const at::Tensor& like, at::IntArrayRef offsets) {
  const CudaCall call(like);
  at::Tensor on_device = at::empty({static_cast<int64_t>(offsets.size())}, like.options().dtype(at::kInt));
  const std::vector<int32_t> values(offsets.begin(), offsets.end());
  restate_cuda_errors([&] { upload(values, on_device.mutable_data_ptr<int32_t>(), call.stream()); });
  return on_device;
}
// NOLINTEND(performance-unnecessary-value-param)

}  // namespace
}  // namespace lighthouse::ops

TORCH_LIBRARY_IMPL(lighthouse, CUDA, m) {
  namespace ops = lighthouse::ops;
  m.impl("_token_norms", &ops::token_norms_cuda);
  m.impl("_gla_scores", &ops::gla_scores_cuda);
  m.impl("_select_entries", &ops::select_entries_cuda);
  m.impl("_invert_selection", &ops::invert_selection_cuda);
  m.impl("_gather_rows", &ops::gather_rows_cuda);
  m.impl("_gather_rows_backward", &ops::gather_rows_backward_cuda);
  m.impl("_scatter_rows", &ops::scatter_rows_cuda);
  m.impl("_scatter_rows_backward", &ops::scatter_rows_backward_cuda);
  m.impl("_gather_by_norm", &ops::gather_by_norm_cuda);
  m.impl("_offsets_like", &ops::offsets_like_cuda);
}

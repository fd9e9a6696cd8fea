// CUDA kernels: the stages on the memory of tensors, on the current stream.
#include <cuda_runtime_api.h>
#ifndef LIGHTHOUSE_STABLE_ABI
#include <torch/library.h>
#endif

#include <utility>
#include <vector>

#include "cuda/upload.h"
#include "lighthouse/cuda_stages.h"
#include "ops/cuda_call.h"
#include "ops/one_pass_gather.h"
#include "ops/stage_params.h"

namespace lighthouse::ops {
namespace {

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
Tensor token_norms_cuda(const Tensor& x, Size num_kv_heads) {
  Tensor score = prepare_token_norms(x, num_kv_heads);
  const CudaCall call(x);
  restate_cuda_errors([&] { token_norms(token_norm_params(x, score), call.stream()); });
  return score;
}

TwoTensors gla_scores_cuda(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate, int64_t dilation,
                           OptionalIntegers cu_seqlens) {
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

TwoTensors select_entries_cuda(const Tensor& s_qk, const Tensor& s_kq, Integers layout, bool cover_prefix,
                               OptionalIntegers cu_seqlens) {
  SelectCall prepared = prepare_select_entries(s_qk, s_kq, layout, cover_prefix, cu_seqlens);
  const Tensor qk = contiguous(s_qk);
  const Tensor kq = contiguous(s_kq);
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

bool is_capturing(const Tensor& like) {
  const CudaCall call(like);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  LIGHTHOUSE_CUDA_CHECK(cudaStreamIsCapturing(call.stream(), &status));
  return status != cudaStreamCaptureStatusNone;
}

/// Whether all values were right is read back, the one copy to the host of all operators; without `check`, and while a
/// CUDA graph is captured, they are trusted. The CPU then says which value was wrong.
Tensor invert_selection_cuda(const Tensor& selection, Size seq_len, Integers layout, OptionalIntegers cu_seqlens,
                             bool check) {
  InvertSelectionCall prepared = prepare_invert_selection(selection, seq_len, layout, cu_seqlens);
  const bool is_checked = check && !is_capturing(selection);
  const Tensor num_errors = zeros(is_checked ? 1 : 0, selection);
  restate_cuda_errors([&] {
    CudaCall call(selection);
    invert_selection(InvertParams{selection.const_data_ptr<int32_t>(), selection.size(0), selection.size(1),
                                  prepared.slots.mutable_data_ptr<int32_t>(),
                                  is_checked ? num_errors.mutable_data_ptr<int32_t>() : nullptr},
                     call.plan(prepared.plan), call.stream());
  });
  if (is_checked && *on_cpu(num_errors).const_data_ptr<int32_t>() > 0) {
    invert_selection_cpu(on_cpu(selection), seq_len, layout, cu_seqlens, check);
    LIGHTHOUSE_FAIL("selection was changed by another stream while it was checked");
  }
  return prepared.slots;
}

ThreeTensors gather_rows_cuda(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& selection,
                              const Tensor& slots, Integers layout, OptionalIntegers cu_seqlens) {
  ThreeTensorsCall prepared = prepare_gather_rows(q, k, v, selection, slots, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(q);
    gather_rows(gather_params(q, k, v, selection, prepared), slots.const_data_ptr<int32_t>(), {},
                call.plan(prepared.plan), call.stream());
  });
  return {std::move(prepared.q), std::move(prepared.k), std::move(prepared.v)};
}

ThreeTensors gather_rows_backward_cuda(const Tensor& dq_rows, const Tensor& dk_rows, const Tensor& dv_rows,
                                       const Tensor& selection, const Tensor& slots, Size seq_len, Integers layout,
                                       OptionalIntegers cu_seqlens) {
  ThreeTensorsCall prepared =
      prepare_gather_rows_backward(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(dq_rows);
    gather_rows_backward(gather_backward_params(dq_rows, dk_rows, dv_rows, slots, prepared), call.plan(prepared.plan),
                         call.stream());
  });
  return {std::move(prepared.q), std::move(prepared.k), std::move(prepared.v)};
}

Tensor scatter_rows_cuda(const Tensor& rows, const Tensor& selection, const Tensor& slots, Size seq_len,
                         Integers layout, OptionalIntegers cu_seqlens) {
  OneTensorCall prepared = prepare_scatter_rows(rows, selection, slots, seq_len, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(rows);
    scatter_rows(scatter_params(rows, slots, prepared), call.plan(prepared.plan), call.stream());
  });
  return prepared.out;
}

Tensor scatter_rows_backward_cuda(const Tensor& dout, const Tensor& selection, const Tensor& slots, Integers layout,
                                  OptionalIntegers cu_seqlens) {
  OneTensorCall prepared = prepare_scatter_rows_backward(dout, selection, slots, layout, cu_seqlens);
  restate_cuda_errors([&] {
    CudaCall call(dout);
    scatter_rows_backward(scatter_backward_params(dout, selection, prepared), slots.const_data_ptr<int32_t>(),
                          call.plan(prepared.plan), call.stream());
  });
  return prepared.out;
}

/// What the one pass does not take.
SelectedRows gather_in_steps(const Tensor& q, const Tensor& k, const Tensor& v, Integers layout, bool cover_prefix,
                             OptionalIntegers cu_seqlens) {
  const int64_t num_kv_heads = k.size(2);
  auto [selection, slots] = select_entries_cuda(token_norms_cuda(q, num_kv_heads), token_norms_cuda(k, num_kv_heads),
                                                layout, cover_prefix, cu_seqlens);
  auto [q_rows, k_rows, v_rows] = gather_rows_cuda(q, k, v, selection, slots, layout, cu_seqlens);
  return {std::move(q_rows), std::move(k_rows), std::move(v_rows), std::move(selection), std::move(slots)};
}

SelectedRows gather_by_norm_cuda(const Tensor& q, const Tensor& k, const Tensor& v, Integers layout, bool cover_prefix,
                                 OptionalIntegers cu_seqlens) {
  GatherByNormCall prepared = prepare_gather_by_norm(q, k, v, layout, cover_prefix, cu_seqlens);
  const GatherParams params = gather_params(q, k, v, prepared.selection, prepared.rows);
  if (prepared.rows.plan.is_full() ||
      !can_pool_and_score(params.q, params.k, params.v, params.dtype, params.head_dim)) {
    return gather_in_steps(q, k, v, layout, cover_prefix, cu_seqlens);
  }
  gather_in_one_pass(params, q, {}, prepared);
  return selected_rows(prepared);
}

Tensor offsets_like_cuda(const Tensor& like, Integers offsets) {
  const CudaCall call(like);
  Tensor on_device = empty({static_cast<int64_t>(offsets.size())}, like, ScalarType::Int);
  const std::vector<int32_t> values(offsets.begin(), offsets.end());
  restate_cuda_errors([&] { upload(values, on_device.mutable_data_ptr<int32_t>(), call.stream()); });
  return on_device;
}
// NOLINTEND(performance-unnecessary-value-param)

}  // namespace
}  // namespace lighthouse::ops

LIGHTHOUSE_KERNELS(CUDA, m) {
  namespace ops = lighthouse::ops;
  m.impl("_token_norms", LIGHTHOUSE_KERNEL(ops::token_norms_cuda));
  m.impl("_gla_scores", LIGHTHOUSE_KERNEL(ops::gla_scores_cuda));
  m.impl("_select_entries", LIGHTHOUSE_KERNEL(ops::select_entries_cuda));
  m.impl("_invert_selection", LIGHTHOUSE_KERNEL(ops::invert_selection_cuda));
  m.impl("_gather_rows", LIGHTHOUSE_KERNEL(ops::gather_rows_cuda));
  m.impl("_gather_rows_backward", LIGHTHOUSE_KERNEL(ops::gather_rows_backward_cuda));
  m.impl("_scatter_rows", LIGHTHOUSE_KERNEL(ops::scatter_rows_cuda));
  m.impl("_scatter_rows_backward", LIGHTHOUSE_KERNEL(ops::scatter_rows_backward_cuda));
  m.impl("_gather_by_norm", LIGHTHOUSE_KERNEL(ops::gather_by_norm_cuda));
  m.impl("_offsets_like", LIGHTHOUSE_KERNEL(ops::offsets_like_cuda));
}

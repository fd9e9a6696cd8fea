// The stages as lighthouse/cuda_stages.h has them, each called a number of times in a CUDA graph on copies of its
// arguments that together exceed the L2 cache.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/scaled_dot_product_attention.h>
#include <c10/cuda/CUDAStream.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <tuple>
#include <vector>

#include "bench/stage_bytes.h"
#include "bench/stages.h"
#include "lighthouse/cuda_stages.h"
#include "ops/aten_context.h"

namespace lighthouse::bench {
namespace {

/// Arguments of all stages. Linear maps share them: any values of the right shape will do.
struct StageBuffers {
  at::Tensor q, k, v;                       // [B, N, heads, D]
  at::Tensor gate;                          // [B, N, H], scorer gla
  at::Tensor s_qk, s_kq;                    // [B, H_kv, N], scorers dilated and gla
  at::Tensor o, dk, dv;                     // [B, N, heads, D]; o is dq as well
  at::Tensor q_rows, k_rows, v_rows;        // [B, heads, S, D]; q_rows is o by row as well
  at::Tensor max_qk, max_kq;                // [B, heads, num_maxima]
  at::Tensor q_coarse, k_coarse, v_coarse;  // [B, num_coarse, heads, D]
  at::Tensor pool_workspace, select_workspace;
  at::Tensor selection, slots, expanded;  // [B, H_kv, S], [B, H_kv, num_slots], [B, H_kv, num_expanded]
  at::Tensor o_qk, o_kq;                  // [classes, H, N / classes, D], scorer dilated
};
using Buffer = at::Tensor StageBuffers::*;

View by_token(const at::Tensor& x) { return calls::to_token(ops::view(x)); }
View by_row(const at::Tensor& x) { return calls::to_row(ops::view(x)); }
ConstView read(const View& view) { return {view.data, view.batch_stride, view.seq_stride, view.head_stride}; }

CudaStream current_stream() { return c10::cuda::getCurrentCUDAStream().stream(); }

/// The calls of each stage, and the arguments of one set.
class StageCalls {
 public:
  StageCalls(const Inputs& inputs, const AttentionCase& attention_case)
      : case_(attention_case),
        plan_(make_plan(case_.selection, case_.seq_len)),
        device_plan_(make_device_plan(plan_, device_documents(plan_))),
        dtype_(calls::stage_dtype(ops::view(inputs.q).element)),
        batch_(inputs.q.size(0)),
        num_heads_(inputs.q.size(2)),
        num_kv_heads_(inputs.k.size(2)),
        head_dim_(inputs.q.size(3)) {}

  bool by_norm() const { return case_.score.scorer == Scorer::kNorm; }

  StageBuffers make_buffers(const Inputs& inputs) const {
    StageBuffers x{};
    x.q = inputs.q.detach();
    x.k = inputs.k.detach();
    x.v = inputs.v.detach();
    x.gate = inputs.gate;
    allocate_scores(x);
    allocate_rows(x);
    return x;
  }

  void pool(StageBuffers& x) const {
    pool_and_score({read(by_token(x.q)), read(by_token(x.k)), read(by_token(x.v)), dtype_, batch_, num_heads_,
                    num_kv_heads_, head_dim_, x.max_qk.mutable_data_ptr<float>(), x.max_kq.mutable_data_ptr<float>(),
                    x.q_coarse.mutable_data_ptr(), x.k_coarse.mutable_data_ptr(), x.v_coarse.mutable_data_ptr(),
                    x.pool_workspace.mutable_data_ptr<float>()},
                   device_plan_, current_stream());
  }
  void score(StageBuffers& x) const {
    std::optional<at::Tensor> gate;
    if (x.gate.defined()) gate = x.gate;
    std::tie(x.s_qk, x.s_kq) = token_scores(x.q, x.k, x.v, case_.score, gate);
  }
  void pool_token_scores(StageBuffers& x) const {
    pool_scores({x.s_qk.const_data_ptr<float>(), x.s_kq.const_data_ptr<float>(), batch_, num_kv_heads_,
                 x.max_qk.mutable_data_ptr<float>(), x.max_kq.mutable_data_ptr<float>()},
                device_plan_, current_stream());
  }
  void select(StageBuffers& x) const {
    select_entries({x.max_qk.const_data_ptr<float>(), x.max_kq.const_data_ptr<float>(), batch_, x.max_qk.size(1),
                    num_kv_heads_, x.selection.mutable_data_ptr<int32_t>(), x.slots.mutable_data_ptr<int32_t>(),
                    x.expanded.mutable_data_ptr<int32_t>(), x.select_workspace.mutable_data_ptr<int32_t>()},
                   plan_, device_plan_, current_stream());
  }
  void gather(StageBuffers& x) const {
    const CoarseMeans means{x.q_coarse.const_data_ptr(), x.k_coarse.const_data_ptr(), x.v_coarse.const_data_ptr(),
                            x.expanded.const_data_ptr<int32_t>()};
    gather_rows({read(by_token(x.q)), read(by_token(x.k)), read(by_token(x.v)), by_row(x.q_rows), by_row(x.k_rows),
                 by_row(x.v_rows), x.selection.const_data_ptr<int32_t>(), &plan_, dtype_, batch_, num_heads_,
                 num_kv_heads_, head_dim_},
                x.slots.const_data_ptr<int32_t>(), by_norm() ? means : CoarseMeans{}, device_plan_, current_stream());
  }
  void scatter(StageBuffers& x) const {
    scatter_rows({read(by_row(x.q_rows)), by_token(x.o), x.slots.const_data_ptr<int32_t>(), &plan_, dtype_, batch_,
                  num_heads_, num_kv_heads_, head_dim_},
                 device_plan_, current_stream());
  }
  void scatter_adjoint(StageBuffers& x) const {
    scatter_rows_backward({read(by_token(x.q)), by_row(x.q_rows), x.selection.const_data_ptr<int32_t>(), &plan_, dtype_,
                           batch_, num_heads_, num_kv_heads_, head_dim_},
                          x.slots.const_data_ptr<int32_t>(), device_plan_, current_stream());
  }
  void gather_adjoint(StageBuffers& x) const {
    gather_rows_backward({read(by_row(x.q_rows)), read(by_row(x.k_rows)), read(by_row(x.v_rows)), by_token(x.o),
                          by_token(x.dk), by_token(x.dv), x.slots.const_data_ptr<int32_t>(), &plan_, dtype_, batch_,
                          num_heads_, num_kv_heads_, head_dim_},
                         device_plan_, current_stream());
  }

  // The calls that scorer dilated is made of, for one row whose residue classes are equally long.
  bool has_even_classes() const {
    return batch_ == 1 && num_heads_ == num_kv_heads_ && case_.seq_len % case_.score.dilation == 0;
  }
  void attend_qk(StageBuffers& x) const { x.o_qk = attend(by_class(x.q), by_class(x.k), by_class(x.v)); }
  void attend_kq(StageBuffers& x) const { x.o_kq = attend(by_class(x.k), by_class(x.q), by_class(x.v)); }
  void norms(StageBuffers& x) const {
    ops::token_norms(x.o_qk.transpose(1, 2), num_heads_);
    ops::token_norms(x.o_kq.transpose(1, 2), num_heads_);
  }
  at::Tensor by_class(const at::Tensor& x) const {  // [classes, H, N / classes, D]
    return x[0].unflatten(0, {-1, case_.score.dilation}).permute({1, 2, 0, 3});
  }

 private:
  static at::Tensor attend(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, /*is_causal=*/true);
  }

  void allocate_scores(StageBuffers& x) const {
    const at::TensorOptions floats = x.q.options().dtype(at::kFloat);
    const at::TensorOptions integers = x.q.options().dtype(at::kInt);
    x.max_qk = at::empty({batch_, by_norm() ? num_heads_ : num_kv_heads_, device_plan_.num_maxima}, floats);
    x.max_kq = at::empty({batch_, num_kv_heads_, device_plan_.num_maxima}, floats);
    x.q_coarse = at::empty({batch_, device_plan_.num_coarse, num_heads_, head_dim_}, x.q.options());
    x.k_coarse = at::empty({batch_, device_plan_.num_coarse, num_kv_heads_, head_dim_}, x.q.options());
    x.v_coarse = at::empty_like(x.k_coarse);
    x.pool_workspace = at::empty(
        {pool_workspace_elements(device_plan_, batch_, num_heads_, num_kv_heads_, head_dim_, dtype_)}, floats);
    x.select_workspace = at::empty({select_workspace_elements(plan_, batch_, num_kv_heads_)}, integers);
    x.selection = at::empty({batch_, num_kv_heads_, plan_.gathered_len}, integers);
    x.slots = at::empty({batch_, num_kv_heads_, plan_.num_slots}, integers);
    x.expanded = at::empty({batch_, num_kv_heads_, device_plan_.num_expanded}, integers);
  }
  void allocate_rows(StageBuffers& x) const {
    x.q_rows = at::empty({batch_, num_heads_, plan_.gathered_len, head_dim_}, x.q.options());
    x.k_rows = at::empty({batch_, num_kv_heads_, plan_.gathered_len, head_dim_}, x.q.options());
    x.v_rows = at::empty_like(x.k_rows);
    x.o = at::empty_like(x.q);
    x.dk = at::empty_like(x.k);
    x.dv = at::empty_like(x.v);
  }

  const AttentionCase& case_;
  SequencePlan plan_;
  DevicePlan device_plan_;
  DType dtype_;
  int64_t batch_, num_heads_, num_kv_heads_, head_dim_;
};

using Call = void (StageCalls::*)(StageBuffers&) const;

class CudaStages {
 public:
  explicit CudaStages(const StageBench& bench)
      : bench_(bench), calls_(bench.inputs, bench.attention_case), buffers_(calls_.make_buffers(bench.inputs)) {}

  StageTimings run() {
    const at::NoGradGuard no_grad;
    using X = StageBuffers;
    select_once();
    const StageBytes bytes = stage_bytes(bench_.inputs, buffers_.selection, bench_.attention_case.selection);
    time_scorer(bytes);
    stage("select", calls_.by_norm() ? bytes.select : bytes.select_by_group, &StageCalls::select,
          {&X::max_qk, &X::max_kq, &X::selection, &X::slots, &X::expanded, &X::select_workspace});
    stage("gather", calls_.by_norm() ? bytes.gather_with_means : bytes.gather, &StageCalls::gather,
          {&X::q, &X::k, &X::v, &X::q_coarse, &X::k_coarse, &X::v_coarse, &X::slots, &X::expanded, &X::q_rows,
           &X::k_rows, &X::v_rows});
    stage("scatter", bytes.scatter, &StageCalls::scatter, {&X::q_rows, &X::slots, &X::o});
    stage("scatter backward", bytes.scatter_backward, &StageCalls::scatter_adjoint,
          {&X::q, &X::selection, &X::slots, &X::q_rows});
    stage("gather backward", bytes.gather_backward, &StageCalls::gather_adjoint,
          {&X::q_rows, &X::k_rows, &X::v_rows, &X::slots, &X::o, &X::dk, &X::dv});
    return std::move(results_);
  }

 private:
  void select_once() {
    if (calls_.by_norm()) {
      calls_.pool(buffers_);
    } else {
      calls_.score(buffers_);
      calls_.pool_token_scores(buffers_);
    }
    calls_.select(buffers_);
  }

  void time_scorer(const StageBytes& bytes) {
    using X = StageBuffers;
    if (calls_.by_norm()) {
      stage(
          "pool and score", bytes.pool_and_score, &StageCalls::pool,
          {&X::q, &X::k, &X::v, &X::max_qk, &X::max_kq, &X::q_coarse, &X::k_coarse, &X::v_coarse, &X::pool_workspace});
      return;
    }
    const bool gla = bench_.attention_case.score.scorer == Scorer::kGla;
    stage(gla ? "gla scores" : "dilated scores", gla ? bytes.gla : 0, &StageCalls::score, {&X::q, &X::k, &X::v});
    if (!gla && calls_.has_even_classes()) time_dilated_parts(bytes);
    stage("pool scores", bytes.pool_scores, &StageCalls::pool_token_scores,
          {&X::s_qk, &X::s_kq, &X::max_qk, &X::max_kq});
  }

  void time_dilated_parts(const StageBytes& bytes) {
    using X = StageBuffers;
    const double flop = attention_flop(calls_.by_class(buffers_.q));
    stage("dilated SDPA of q", 0, &StageCalls::attend_qk, {&X::q, &X::k, &X::v});
    results_.back().flop = flop;
    stage("dilated SDPA of k", 0, &StageCalls::attend_kq, {&X::q, &X::k, &X::v});
    results_.back().flop = flop;
    stage("dilated norms", bytes.dilated_norms, &StageCalls::norms, {&X::o_qk, &X::o_kq});
    buffers_.o_qk = at::Tensor();
    buffers_.o_kq = at::Tensor();
  }

  /// `arguments` are read or written by the call.
  void stage(const char* name, double bytes, Call call, std::initializer_list<Buffer> arguments) {
    constexpr size_t kFewestCalls = 8;
    (calls_.*call)(buffers_);  // loads the kernel, and makes the arguments of stages to come
    std::vector<StageBuffers> sets = copies_of(arguments, bytes);
    const size_t num_calls = sets.size() * ((kFewestCalls + sets.size() - 1) / sets.size());
    std::vector<Function> calls;
    for (size_t i = 0; i < num_calls; ++i) {
      calls.emplace_back([&, i] { (calls_.*call)(sets[i % sets.size()]); });
    }
    const std::unique_ptr<Recording> recording = bench_.device.record(calls);
    const Timing timing = measure([&] { recording->replay(); }, bench_.limits, bench_.device.stopwatch());
    results_.push_back({name, per_call(timing, static_cast<int64_t>(num_calls)), bytes, 0});
  }

  /// `touched` bytes of the arguments are read or written, 0: all of them.
  std::vector<StageBuffers> copies_of(std::initializer_list<Buffer> arguments, double touched) const {
    auto bytes = static_cast<int64_t>(touched);
    if (bytes == 0) {
      for (const Buffer buffer : arguments) bytes += static_cast<int64_t>((buffers_.*buffer).nbytes());
    }
    std::vector<StageBuffers> sets(static_cast<size_t>(bench_.device.num_copies(bytes)), buffers_);
    for (size_t i = 1; i < sets.size(); ++i) {
      for (const Buffer buffer : arguments) sets[i].*buffer = (buffers_.*buffer).clone();
    }
    return sets;
  }

  const StageBench& bench_;
  StageCalls calls_;
  StageBuffers buffers_;
  StageTimings results_;
};

}  // namespace

StageTimings time_stages_cuda(const StageBench& bench) {
  if (bench.attention_case.selection.num_levels == 1) return {};  // plain attention: nothing to pool or to select
  return CudaStages(bench).run();
}

at::Tensor selection_by_norm_cuda(const Inputs& inputs, const AttentionCase& attention_case) {
  const StageCalls calls(inputs, attention_case);
  StageBuffers buffers = calls.make_buffers(inputs);
  calls.pool(buffers);
  calls.select(buffers);
  return buffers.selection;
}

}  // namespace lighthouse::bench

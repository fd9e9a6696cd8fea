#include "ops/cudnn_backward.h"

#include <ATen/ops/empty_strided.h>
#include <c10/cuda/CUDAGuard.h>

#include <algorithm>
#include <array>
#include <bit>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "ops/cudnn_plan.h"
#include "ops/stock_rules.h"

namespace lighthouse::ops {
namespace {

constexpr size_t kMaxPlans = 16;

enum TensorId : int64_t { kQ = 1, kK, kV, kO, kDout, kStats, kDq, kDk, kDv };

struct Layout {
  std::array<int64_t, 4> sizes, strides;
  bool operator==(const Layout&) const = default;
};

/// The stride of a dimension of size 1 says nothing; it becomes one that is longer than the rest of the tensor.
Layout without_idle_strides(Layout layout) {
  int64_t extent = 1;
  for (int i = 0; i < 4; ++i) {
    if (layout.sizes[i] > 1) extent = std::max(extent, layout.sizes[i] * layout.strides[i]);
  }
  for (int i = 0; i < 4; ++i) {
    if (layout.sizes[i] == 1) layout.strides[i] = extent;
  }
  return layout;
}

Layout layout_of_tensor(const at::Tensor& x) {
  Layout layout;
  std::copy_n(x.sizes().begin(), 4, layout.sizes.begin());
  std::copy_n(x.strides().begin(), 4, layout.strides.begin());
  return without_idle_strides(layout);
}

/// A tensor of its own with the dimensions of x in the same order, where x fills its memory; else contiguous.
Layout fresh_layout(const at::Tensor& x) {
  if (x.is_non_overlapping_and_dense()) return layout_of_tensor(x);
  const int64_t head = x.size(2) * x.size(3);
  return without_idle_strides({{x.size(0), x.size(1), x.size(2), x.size(3)}, {x.size(1) * head, head, x.size(3), 1}});
}

at::Tensor empty_with(const Layout& layout, const at::Tensor& like) {
  return at::empty_strided(layout.sizes, layout.strides, like.options());
}

/// x itself where it lies as `layout` says, else a copy that does.
at::Tensor with_layout(const at::Tensor& x, const Layout& layout) {
  const bool is_aligned = reinterpret_cast<uintptr_t>(x.const_data_ptr()) % kLoadBytes == 0;
  if (is_aligned && layout_of_tensor(x) == layout) return x;
  at::Tensor copy = empty_with(layout, x);
  return copy.copy_(x);
}

/// What a backward is like: all that its plan depends on.
struct Problem {
  int device;
  at::ScalarType dtype;
  Layout q, k, v;
  Layout o, dk, dv;  ///< o is the layout of dout and dq as well
  CudnnCall call;

  int64_t batch() const { return q.sizes[0]; }
  int64_t num_heads() const { return q.sizes[1]; }
  int64_t num_kv_heads() const { return k.sizes[1]; }
  int64_t group() const { return num_heads() / num_kv_heads(); }
  int64_t seq_len() const { return q.sizes[2]; }  ///< of the queries

  std::vector<int64_t> key() const {
    std::vector<int64_t> key{device, static_cast<int64_t>(dtype), std::bit_cast<int64_t>(call.softmax_scale),
                             static_cast<int64_t>(call.causal), call.slice_bytes};
    for (const Layout* layout : {&q, &k, &v, &o, &dk, &dv}) {
      key.insert(key.end(), layout->sizes.begin(), layout->sizes.end());
      key.insert(key.end(), layout->strides.begin(), layout->strides.end());
    }
    return key;
  }
};

Problem problem_of(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const CudnnCall& call) {
  return {q.device().index(),  q.scalar_type(),     layout_of_tensor(q),
          layout_of_tensor(k), layout_of_tensor(v), fresh_layout(q),
          fresh_layout(k),     fresh_layout(v),     call};
}

/// A backward of `batch` sequences and `kv_heads` KV heads of each, with their query heads.
struct Plan : CudnnPlan {
  int64_t batch = 0, kv_heads = 0;
};

fe::graph::Tensor_attributes described(TensorId id, const char* name, Layout layout, int64_t batch, int64_t heads) {
  layout.sizes[0] = batch;
  layout.sizes[1] = heads;
  layout = without_idle_strides(layout);
  return fe::graph::Tensor_attributes()
      .set_uid(id)
      .set_name(name)
      .set_dim({layout.sizes.begin(), layout.sizes.end()})
      .set_stride({layout.strides.begin(), layout.strides.end()});
}

std::shared_ptr<fe::graph::Graph> make_graph(const Problem& problem, int64_t batch, int64_t kv_heads) {
  const int64_t heads = kv_heads * problem.group();
  const int64_t seq_len = problem.seq_len();
  auto graph = std::make_shared<fe::graph::Graph>();
  with_types(*graph, problem.dtype);
  const auto q = graph->tensor(described(kQ, "q", problem.q, batch, heads));
  const auto k = graph->tensor(described(kK, "k", problem.k, batch, kv_heads));
  const auto v = graph->tensor(described(kV, "v", problem.v, batch, kv_heads));
  const auto o = graph->tensor(described(kO, "o", problem.o, batch, heads));
  const auto dout = graph->tensor(described(kDout, "dout", problem.o, batch, heads));
  const auto stats = graph->tensor(fe::graph::Tensor_attributes()
                                       .set_uid(kStats)
                                       .set_name("logsumexp")
                                       .set_dim({batch, heads, seq_len, 1})
                                       .set_stride({heads * seq_len, seq_len, 1, 1})
                                       .set_data_type(fe::DataType_t::FLOAT));
  auto attributes = fe::graph::SDPA_backward_attributes()
                        .set_name("attention_backward")
                        .set_attn_scale(static_cast<float>(problem.call.softmax_scale))
                        .set_deterministic_algorithm(true);
  if (problem.call.causal) {
    attributes.set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT).set_diagonal_band_right_bound(0);
  }
  const auto [dq, dk, dv] = graph->sdpa_backward(q, k, v, o, dout, stats, attributes);
  const auto write = [&](const auto& tensor, TensorId id, const char* name, const Layout& layout, int64_t num) {
    const fe::graph::Tensor_attributes as = described(id, name, layout, batch, num);
    tensor->set_output(true).set_uid(id).set_dim(as.get_dim()).set_stride(as.get_stride());
  };
  write(dq, kDq, "dq", problem.o, heads);
  write(dk, kDk, "dk", problem.dk, kv_heads);
  write(dv, kDv, "dv", problem.dv, kv_heads);
  return graph;
}

/// Null where cuDNN has no such backward.
std::shared_ptr<const Plan> build(const Problem& problem, int64_t batch, int64_t kv_heads) {
  const std::string what =
      c10::str("cudnn_backward of ", batch, " x ", kv_heads, " KV heads of ", problem.seq_len(), " rows");
  const CudnnPlan plan = build_plan(what, make_graph(problem, batch, kv_heads));
  return plan.graph ? std::make_shared<const Plan>(Plan{plan, batch, kv_heads}) : nullptr;
}

/// One KV head tells what each costs.
std::shared_ptr<const Plan> choose_plan(const Problem& problem) {
  std::shared_ptr<const Plan> one = build(problem, 1, 1);
  if (!one) return nullptr;
  const int64_t num_kv_heads = problem.num_kv_heads();
  const int64_t affordable = problem.call.slice_bytes / std::max<int64_t>(1, one->workspace_bytes);
  if (affordable >= problem.batch() * num_kv_heads) {
    return problem.batch() * num_kv_heads == 1 ? one : build(problem, problem.batch(), num_kv_heads);
  }
  // Slices of one size need one plan. They hold heads of one sequence, because cuDNN before 9.26 reads a log-sum-exp
  // of several only where these lie side by side.
  int64_t kv_heads = std::clamp<int64_t>(affordable, 1, num_kv_heads);
  while (num_kv_heads % kv_heads != 0) --kv_heads;
  return kv_heads == 1 ? one : build(problem, 1, kv_heads);
}

/// The plan of `problem` or null, from the latest kMaxPlans or new.
std::shared_ptr<const Plan> find_plan(const Problem& problem) {
  static auto& plans = *new PlanCache<Plan>(kMaxPlans);
  return plans.find(problem.key(), [&] { return choose_plan(problem); });
}

/// Element [sequence, head, 0, 0].
void* at_head(const at::Tensor& x, int64_t sequence, int64_t head) {
  const int64_t elements = sequence * x.stride(0) + head * x.stride(1);
  return static_cast<std::byte*>(const_cast<void*>(x.const_data_ptr())) + elements * x.element_size();
}

struct Tensors {
  at::Tensor q, k, v, o, dout;
  at::Tensor logsumexp;  ///< [B * H, S], contiguous
  at::Tensor dq, dk, dv;
};

void run_slice(const Plan& plan, const Problem& problem, const Tensors& x, int64_t sequence, int64_t kv_head,
               void* workspace) {
  const int64_t head = kv_head * problem.group();
  const int64_t num_rows = plan.batch * plan.kv_heads * problem.group();
  at::Tensor logsumexp = x.logsumexp.narrow(0, sequence * problem.num_heads() + head, num_rows);
  if (reinterpret_cast<uintptr_t>(logsumexp.const_data_ptr()) % kLoadBytes != 0) logsumexp = logsumexp.clone();
  const fe::error_t ran = run_plan(plan,
                                   {{kQ, at_head(x.q, sequence, head)},
                                    {kK, at_head(x.k, sequence, kv_head)},
                                    {kV, at_head(x.v, sequence, kv_head)},
                                    {kO, at_head(x.o, sequence, head)},
                                    {kDout, at_head(x.dout, sequence, head)},
                                    {kStats, const_cast<void*>(logsumexp.const_data_ptr())},
                                    {kDq, at_head(x.dq, sequence, head)},
                                    {kDk, at_head(x.dk, sequence, kv_head)},
                                    {kDv, at_head(x.dv, sequence, kv_head)}},
                                   workspace);
  TORCH_CHECK(ran.is_good(), "cudnn_backward: Graph::execute failed for KV heads ", kv_head, " to ",
              kv_head + plan.kv_heads - 1, " of sequence ", sequence, ": ", ran.err_msg);
}

}  // namespace

bool cudnn_backward_runs(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const CudnnCall& call) {
  if (!cudnn_serves(q)) return false;
  const c10::cuda::CUDAGuard guard(q.device());
  return find_plan(problem_of(q, k, v, call)) != nullptr;
}

ThreeTensors cudnn_backward(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& o,
                            const at::Tensor& logsumexp, const at::Tensor& dout, const CudnnCall& call) {
  const c10::cuda::CUDAGuard guard(q.device());
  const Problem problem = problem_of(q, k, v, call);
  const std::shared_ptr<const Plan> plan = find_plan(problem);
  TORCH_CHECK(plan, "cudnn_backward: cuDNN has no repeatable backward here; ask cudnn_backward_runs first");
  const int64_t num_rows = problem.batch() * problem.num_heads();
  TORCH_CHECK(logsumexp.scalar_type() == at::kFloat && logsumexp.numel() == num_rows * problem.seq_len(),
              "cudnn_backward: logsumexp is ", logsumexp.scalar_type(), " ", logsumexp.sizes(), "; it must be fp32, ",
              num_rows, " x ", problem.seq_len(), " elements");
  const Tensors tensors{q,
                        k,
                        v,
                        with_layout(o, problem.o),
                        with_layout(dout, problem.o),
                        logsumexp.reshape({num_rows, problem.seq_len()}).contiguous(),
                        empty_with(problem.o, q),
                        empty_with(problem.dk, k),
                        empty_with(problem.dv, v)};
  keep_while_captured(plan);
  const c10::DataPtr workspace = workspace_of(*plan);
  for (int64_t sequence = 0; sequence < problem.batch(); sequence += plan->batch) {
    for (int64_t kv_head = 0; kv_head < problem.num_kv_heads(); kv_head += plan->kv_heads) {
      run_slice(*plan, problem, tensors, sequence, kv_head, workspace.get());
    }
  }
  return {tensors.dq, tensors.dk, tensors.dv};
}

}  // namespace lighthouse::ops

#include "ops/cudnn_documents.h"

#include <ATen/Context.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/empty.h>
#include <c10/cuda/CUDAGuard.h>
#include <torch/csrc/autograd/custom_function.h>

#include <array>
#include <bit>
#include <limits>

#include "ops/cudnn_plan.h"
#include "ops/document_sizes.h"
#include "ops/gathering.h"

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

constexpr const char* kWhat = "cudnn_documents";
constexpr size_t kMaxPlans = 64;

/// cuDNN reads tiles of rows, masks the scores of those past the end of a document, and multiplies them all the same:
/// zero times what the next document has there, which is a number, or zero times what lies behind the last, which must
/// be made one (NaNs there reached o and dk). So every tensor has rows of zeros behind it, as many as the largest tile.
constexpr int64_t kRowsBehind = 256;

/// Tensors of the graphs, rows [heads, channels]. The first five begin, document by document, at offsets of their own;
/// the output's gradient at those of the output, the gradients of q, k and v at those of q, k and v. (With q, k and v
/// beside one another and the same offsets for the three, the gradient of q came out wrong.)
enum Role : int64_t { kQ, kK, kV, kO, kStats, kDq, kDk, kDv, kDout, kLengths, kOffsets };
constexpr int64_t kOwnOffsets = 5;

/// Of the tensors in a graph; 0 would be no number of cuDNN's.
int64_t id_of(int64_t role) { return 1 + role; }

/// What the plans depend on.
struct Problem {
  int device;
  at::ScalarType dtype;
  int64_t heads, kv_heads, head_dim;
  DocumentSizes sizes;
  double softmax_scale;

  std::vector<int64_t> key() const {
    return {device,        dtype == at::kHalf, heads,
            kv_heads,      head_dim,           sizes.count,
            sizes.longest, sizes.total,        std::bit_cast<int64_t>(softmax_scale)};
  }
  int64_t heads_of(int64_t role) const {
    const bool of_keys = role == kK || role == kV || role == kDk || role == kDv;
    return of_keys ? kv_heads : heads;
  }
  int64_t channels_of(int64_t role) const { return role == kStats ? 1 : head_dim; }
  int64_t row_stride(int64_t role) const { return heads_of(role) * channels_of(role); }
};

/// `q`: heads of the queries, or of the output, which lie like them.
Problem problem_of(const at::Tensor& q, int64_t num_kv_heads, const std::vector<int64_t>& num_rows,
                   double softmax_scale) {
  return {q.device().index(),          q.scalar_type(), q.size(1), num_kv_heads, q.size(3),
          DocumentSizes::of(num_rows), softmax_scale};
}

// The graphs.

struct Plans {
  CudnnPlan forward, backward;
};

class Drawing {
 public:
  explicit Drawing(const Problem& problem) : graph(std::make_shared<fe::graph::Graph>()), problem_(problem) {
    with_types(*graph, problem.dtype);
    lengths_ = numbers(kLengths, problem.sizes.count);
  }

  std::shared_ptr<fe::graph::Tensor_attributes> input(Role role) {
    fe::graph::Tensor_attributes tensor;
    describe(tensor, role);
    return graph->tensor(tensor);
  }
  void output(const std::shared_ptr<fe::graph::Tensor_attributes>& tensor, Role role) {
    describe(*tensor, role);
    tensor->set_output(true);
  }
  template <typename Attributes>
  Attributes& options(Attributes& attributes) {
    return attributes.set_attn_scale(static_cast<float>(problem_.softmax_scale))
        .set_padding_mask(true)
        .set_seq_len_q(lengths_)
        .set_seq_len_kv(lengths_)
        .set_diagonal_alignment(fe::DiagonalAlignment_t::TOP_LEFT)
        .set_diagonal_band_right_bound(0);
  }

  std::shared_ptr<fe::graph::Graph> graph;

 private:
  std::shared_ptr<fe::graph::Tensor_attributes> numbers(int64_t id, int64_t count) {
    return graph->tensor(fe::graph::Tensor_attributes()
                             .set_uid(id_of(id))
                             .set_name("numbers" + std::to_string(id))
                             .set_dim({count, 1, 1, 1})
                             .set_stride({1, 1, 1, 1})
                             .set_data_type(fe::DataType_t::INT32));
  }
  void describe(fe::graph::Tensor_attributes& tensor, Role role) {
    const int64_t row = problem_.row_stride(role), channels = problem_.channels_of(role);
    const int64_t offsets_of = role == kDout ? kO : role >= kDq ? role - kDq : role;
    auto& offsets = offsets_[static_cast<size_t>(offsets_of)];
    if (!offsets) offsets = numbers(kOffsets + offsets_of, problem_.sizes.count + 1);
    tensor.set_uid(id_of(role))
        .set_name("tensor" + std::to_string(role))
        .set_dim({problem_.sizes.count, problem_.heads_of(role), problem_.sizes.longest, channels})
        .set_stride({row * problem_.sizes.longest, channels, row, 1})
        .set_ragged_offset(offsets);
    if (role == kStats) tensor.set_data_type(fe::DataType_t::FLOAT);
  }

  const Problem& problem_;
  std::shared_ptr<fe::graph::Tensor_attributes> lengths_;
  std::array<std::shared_ptr<fe::graph::Tensor_attributes>, kOwnOffsets> offsets_;
};

CudnnPlan forward_plan(const Problem& problem) {
  Drawing drawing(problem);
  fe::graph::SDPA_attributes attributes;
  drawing.options(attributes).set_name("documents").set_generate_stats(true);
  const auto [o, stats] = drawing.graph->sdpa(drawing.input(kQ), drawing.input(kK), drawing.input(kV), attributes);
  drawing.output(o, kO);
  drawing.output(stats, kStats);
  return build_plan(kWhat, drawing.graph);
}

CudnnPlan backward_plan(const Problem& problem) {
  Drawing drawing(problem);
  fe::graph::SDPA_backward_attributes attributes;
  drawing.options(attributes)
      .set_name("documents_backward")
      .set_max_total_seq_len_q(problem.sizes.total)
      .set_max_total_seq_len_kv(problem.sizes.total);
  const auto [dq, dk, dv] =
      drawing.graph->sdpa_backward(drawing.input(kQ), drawing.input(kK), drawing.input(kV), drawing.input(kO),
                                   drawing.input(kDout), drawing.input(kStats), attributes);
  drawing.output(dq, kDq);
  drawing.output(dk, kDk);
  drawing.output(dv, kDv);
  return build_plan(kWhat, drawing.graph);
}

/// Null where cuDNN lacks one of them.
std::shared_ptr<const Plans> find_plans(const Problem& problem) {
  static auto& plans = *new PlanCache<Plans>(kMaxPlans);
  return plans.find(problem.key(), [&]() -> std::shared_ptr<const Plans> {
    Plans made{forward_plan(problem), {}};
    if (!made.forward.graph) return nullptr;
    made.backward = backward_plan(problem);
    return made.backward.graph ? std::make_shared<const Plans>(std::move(made)) : nullptr;
  });
}

// The memory.

/// Lengths of the documents of a plan, and where they begin in each kind of memory: int32 [1 + kOwnOffsets, count],
/// those that are not there at the end, without rows.
at::Tensor document_numbers(const Problem& problem, const at::Tensor& like, const std::vector<int64_t>& num_rows) {
  const int64_t stride = problem.sizes.count + 4;  // one more than documents, at multiples of 16 bytes
  std::vector<int64_t> values(static_cast<size_t>(stride * (1 + kOwnOffsets)));
  int64_t document = 0, begin = 0;
  for (const int64_t rows : num_rows) {
    begin += rows;
    if (rows == 0) continue;
    values[static_cast<size_t>(document++)] = rows;
    for (int64_t role = 0; role < kOwnOffsets; ++role) {
      const auto from = values.begin() + (1 + role) * stride;
      std::fill(from + document, from + stride, begin * problem.row_stride(role));
    }
  }
  return offsets_like(like, values).view({1 + kOwnOffsets, stride});
}

/// Memory for rows of [heads, channels] and for those behind them, which are zero.
at::Tensor empty_rows(const at::Tensor& like, int64_t rows, int64_t heads, int64_t channels, at::ScalarType dtype) {
  at::Tensor memory = at::empty({rows + kRowsBehind, heads, channels}, like.options().dtype(dtype));
  memory.narrow(0, rows, kRowsBehind).zero_();
  return memory;
}

/// [1, H, S, D] of that memory.
at::Tensor as_heads(const at::Tensor& memory) {
  return memory.narrow(0, 0, memory.size(0) - kRowsBehind).transpose(0, 1).unsqueeze(0);
}

/// A copy of heads [1, H, S, D].
at::Tensor copied(const at::Tensor& x) {
  const at::Tensor memory = empty_rows(x, x.size(2), x.size(1), x.size(3), x.scalar_type());
  as_heads(memory).copy_(x);
  return memory;
}

struct Named {
  Role role;
  const at::Tensor& tensor;
};

std::unordered_map<int64_t, void*> pointers_of(std::initializer_list<Named> tensors, const at::Tensor& numbers) {
  const auto data = [](const at::Tensor& x) { return const_cast<void*>(x.const_data_ptr()); };
  std::unordered_map<int64_t, void*> pointers{{id_of(kLengths), data(numbers)}};
  for (const auto& [role, tensor] : tensors) pointers[id_of(role)] = data(tensor);
  for (int64_t role = 0; role < kOwnOffsets; ++role) {
    pointers[id_of(kOffsets + role)] = data(numbers.select(0, 1 + role));
  }
  return pointers;
}

struct CudnnDocuments : torch::autograd::Function<CudnnDocuments> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<int64_t>& num_rows, double softmax_scale) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const c10::cuda::CUDAGuard guard(q.device());
    const Problem problem = problem_of(q, k.size(1), num_rows, softmax_scale);
    const std::shared_ptr<const Plans> plans = find_plans(problem);
    TORCH_CHECK(plans, kWhat, ": cuDNN has no such attention here; ask cudnn_documents_run first");
    const at::Tensor numbers = document_numbers(problem, q, num_rows);
    const at::Tensor q_rows = copied(q), k_rows = copied(k), v_rows = copied(v);
    const at::Tensor out = empty_rows(q, q.size(2), q.size(1), q.size(3), q.scalar_type());
    const at::Tensor stats = empty_rows(q, q.size(2), q.size(1), 1, at::kFloat);
    run(plans, plans->forward,
        pointers_of({{kQ, q_rows}, {kK, k_rows}, {kV, v_rows}, {kO, out}, {kStats, stats}}, numbers));
    at::Tensor heads = as_heads(out);
    context->save_for_backward({q_rows, k_rows, v_rows, heads, stats, numbers});
    context->saved_data["num_rows"] = num_rows;
    context->saved_data["softmax_scale"] = softmax_scale;
    return heads;
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    const variable_list saved = context->get_saved_variables();
    const at::Tensor &q = saved[0], &k = saved[1], &v = saved[2], &out = saved[3], &stats = saved[4];
    const c10::cuda::CUDAGuard guard(out.device());
    const Problem problem = problem_of(out, k.size(1), context->saved_data["num_rows"].toIntVector(),
                                       context->saved_data["softmax_scale"].toDouble());
    const std::shared_ptr<const Plans> plans = find_plans(problem);
    TORCH_CHECK(plans, kWhat, ": cuDNN no longer has this attention");
    const auto like = [&](const at::Tensor& x) {
      return empty_rows(x, out.size(2), x.size(1), x.size(2), x.scalar_type());
    };
    const at::Tensor dout = copied(gradients[0]), dq = like(q), dk = like(k), dv = like(v);
    run(plans, plans->backward,
        pointers_of(
            {{kQ, q}, {kK, k}, {kV, v}, {kO, out}, {kStats, stats}, {kDout, dout}, {kDq, dq}, {kDk, dk}, {kDv, dv}},
            saved[5]));
    return {as_heads(dq), as_heads(dk), as_heads(dv), at::Tensor(), at::Tensor()};  // none of the lengths and the scale
  }

 private:
  static void run(const std::shared_ptr<const Plans>& plans, const CudnnPlan& plan,
                  std::unordered_map<int64_t, void*> pointers) {
    keep_while_captured(plans);
    const c10::DataPtr workspace = workspace_of(plan);
    const fe::error_t ran = run_plan(plan, std::move(pointers), workspace.get());
    TORCH_CHECK(ran.is_good(), kWhat, ": Graph::execute failed: ", ran.err_msg);
  }
};

}  // namespace

bool cudnn_documents_run(const at::Tensor& q, const at::Tensor& k, const std::vector<int64_t>& num_rows,
                         double softmax_scale) {
  if (!q.is_cuda() || !at::globalContext().userEnabledCuDNNSDP()) return false;
  const bool is_16_bit = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  const int64_t head_dim = q.size(3);
  if (!is_16_bit || head_dim % 16 != 0 || head_dim == 0 || head_dim > 128 || q.numel() == 0) return false;
  const Problem problem = problem_of(q, k.size(1), num_rows, softmax_scale);
  const int64_t elements = (q.size(2) + kRowsBehind) * problem.row_stride(kQ);
  if (elements > std::numeric_limits<int32_t>::max() || !cudnn_serves(q)) return false;
  const c10::cuda::CUDAGuard guard(q.device());
  return find_plans(problem) != nullptr;
}

at::Tensor cudnn_documents(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::vector<int64_t>& num_rows, double softmax_scale) {
  return CudnnDocuments::apply(q, k, v, num_rows, softmax_scale);
}

}  // namespace lighthouse::ops

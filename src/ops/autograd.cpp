// Section (vii): gather and scatter are linear, and each one's gradient is its adjoint. The adjoints are operators of
// their own with these as their gradients, so second derivatives exist. Nothing is kept but index arrays and sizes.
#include <ATen/core/LegacyTypeDispatch.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/library.h>

#include <utility>
#include <vector>

#include "ops/internal.h"

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// What a linear map needs to know besides its inputs.
struct MapArguments {
  at::Tensor selection, slots;
  c10::SymInt seq_len;
  std::vector<int64_t> layout;
  std::optional<std::vector<int64_t>> offsets;

  at::OptionalIntArrayRef cu_seqlens() const {
    return offsets ? at::OptionalIntArrayRef(*offsets) : at::OptionalIntArrayRef();
  }
};

void save(AutogradContext* context, const MapArguments& arguments) {
  context->save_for_backward({arguments.selection, arguments.slots});
  context->saved_data["seq_len"] = arguments.seq_len;
  context->saved_data["layout"] = arguments.layout;
  context->saved_data["offsets"] = arguments.offsets;
}

MapArguments load(AutogradContext* context) {
  const variable_list saved = context->get_saved_variables();
  return {saved[0], saved[1], context->saved_data["seq_len"].toSymInt(), context->saved_data["layout"].toIntVector(),
          context->saved_data["offsets"].toOptional<std::vector<int64_t>>()};
}

MapArguments make_arguments(const at::Tensor& selection, const at::Tensor& slots, const c10::SymInt& seq_len,
                            at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  std::optional<std::vector<int64_t>> offsets;
  if (cu_seqlens) offsets = cu_seqlens->vec();
  return {selection, slots, seq_len, layout.vec(), offsets};
}

/// Gradients arrive with any strides, among them 0 where a sum was expanded; the kernels need contiguous channels.
variable_list with_contiguous_channels(variable_list gradients) {
  for (at::Tensor& gradient : gradients) {
    if (gradient.sym_size(-1) != 1 && gradient.sym_stride(-1) != 1) gradient = gradient.contiguous();
  }
  return gradients;
}

variable_list as_list(const ThreeTensors& tensors) {
  return {std::get<0>(tensors), std::get<1>(tensors), std::get<2>(tensors)};
}

// The four maps on lists of one or three tensors.
struct GatherMap {
  static variable_list call(const variable_list& x, const MapArguments& a) {
    return as_list(gather_rows(x[0], x[1], x[2], a.selection, a.slots, a.layout, a.cu_seqlens()));
  }
};
struct GatherBackwardMap {
  static variable_list call(const variable_list& x, const MapArguments& a) {
    return as_list(gather_rows_backward(x[0], x[1], x[2], a.selection, a.slots, a.seq_len, a.layout, a.cu_seqlens()));
  }
};
struct ScatterMap {
  static variable_list call(const variable_list& x, const MapArguments& a) {
    return {scatter_rows(x[0], a.selection, a.slots, a.seq_len, a.layout, a.cu_seqlens())};
  }
};
struct ScatterBackwardMap {
  static variable_list call(const variable_list& x, const MapArguments& a) {
    return {scatter_rows_backward(x[0], a.selection, a.slots, a.layout, a.cu_seqlens())};
  }
};

template <typename Map, typename Adjoint>
struct LinearFunction : torch::autograd::Function<LinearFunction<Map, Adjoint>> {
  static variable_list forward(AutogradContext* context, at::TensorList inputs, const MapArguments& arguments) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    save(context, arguments);
    return Map::call(inputs.vec(), arguments);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    variable_list results = Adjoint::call(with_contiguous_channels(gradients), load(context));
    results.emplace_back();  // of the arguments
    return results;
  }
};
/// Gather with the selection it makes itself. The index arrays leave by `maps`, not as results: nothing would make zero
/// gradients for them in backward.
struct GatherByNorm : torch::autograd::Function<GatherByNorm> {
  static variable_list forward(AutogradContext* context, at::TensorList qkv, at::IntArrayRef layout, bool cover_prefix,
                               at::OptionalIntArrayRef cu_seqlens, IndexMaps* maps) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    auto [q_rows, k_rows, v_rows, selection, slots] =
        gather_by_norm(qkv[0], qkv[1], qkv[2], layout, cover_prefix, cu_seqlens);
    save(context, make_arguments(selection, slots, qkv[0].sym_size(1), layout, cu_seqlens));
    *maps = {std::move(selection), std::move(slots)};
    return {std::move(q_rows), std::move(k_rows), std::move(v_rows)};
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    variable_list results = GatherBackwardMap::call(with_contiguous_channels(gradients), load(context));
    results.resize(results.size() + 4);  // of layout, cover_prefix, cu_seqlens and maps
    return results;
  }
};

using Gather = LinearFunction<GatherMap, GatherBackwardMap>;
using GatherBackward = LinearFunction<GatherBackwardMap, GatherMap>;
using Scatter = LinearFunction<ScatterMap, ScatterBackwardMap>;
using ScatterBackward = LinearFunction<ScatterBackwardMap, ScatterMap>;

ThreeTensors as_tuple(const variable_list& list) { return {list[0], list[1], list[2]}; }

// NOLINTBEGIN(performance-unnecessary-value-param): the dispatcher knows SymInt by value only
ThreeTensors gather_rows_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                  const at::Tensor& selection, const at::Tensor& slots, at::IntArrayRef layout,
                                  at::OptionalIntArrayRef cu_seqlens) {
  TORCH_CHECK_VALUE(q.defined() && q.dim() == 4, "gather: q must be [batch, seq_len, num_heads, head_dim]");
  const variable_list inputs{q, k, v};
  return as_tuple(
      Gather::apply(at::TensorList(inputs), make_arguments(selection, slots, q.sym_size(1), layout, cu_seqlens)));
}

ThreeTensors gather_rows_backward_autograd(const at::Tensor& dq_rows, const at::Tensor& dk_rows,
                                           const at::Tensor& dv_rows, const at::Tensor& selection,
                                           const at::Tensor& slots, c10::SymInt seq_len, at::IntArrayRef layout,
                                           at::OptionalIntArrayRef cu_seqlens) {
  const variable_list inputs{dq_rows, dk_rows, dv_rows};
  return as_tuple(
      GatherBackward::apply(at::TensorList(inputs), make_arguments(selection, slots, seq_len, layout, cu_seqlens)));
}

at::Tensor scatter_rows_autograd(const at::Tensor& rows, const at::Tensor& selection, const at::Tensor& slots,
                                 c10::SymInt seq_len, at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  const variable_list inputs{rows};
  return Scatter::apply(at::TensorList(inputs), make_arguments(selection, slots, seq_len, layout, cu_seqlens))[0];
}

at::Tensor scatter_rows_backward_autograd(const at::Tensor& dout, const at::Tensor& selection, const at::Tensor& slots,
                                          at::IntArrayRef layout, at::OptionalIntArrayRef cu_seqlens) {
  TORCH_CHECK_VALUE(dout.defined() && dout.dim() == 4,
                    "scatter backward: dout must be [batch, seq_len, num_heads, head_dim]");
  const variable_list inputs{dout};
  return ScatterBackward::apply(at::TensorList(inputs),
                                make_arguments(selection, slots, dout.sym_size(1), layout, cu_seqlens))[0];
}
// NOLINTEND(performance-unnecessary-value-param)

SelectedRows gather_by_norm_autograd(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                     at::IntArrayRef layout, bool cover_prefix, at::OptionalIntArrayRef cu_seqlens) {
  const variable_list inputs{q, k, v};
  IndexMaps maps;
  variable_list rows = GatherByNorm::apply(at::TensorList(inputs), layout, cover_prefix, cu_seqlens, &maps);
  return {rows[0], rows[1], rows[2], maps.selection, maps.slots};
}

}  // namespace
}  // namespace lighthouse::ops

TORCH_LIBRARY_IMPL(lighthouse, Autograd, m) {
  namespace ops = lighthouse::ops;
  m.impl("_gather_rows", &ops::gather_rows_autograd);
  m.impl("_gather_rows_backward", &ops::gather_rows_backward_autograd);
  m.impl("_gather_by_norm", &ops::gather_by_norm_autograd);
  m.impl("_scatter_rows", &ops::scatter_rows_autograd);
  m.impl("_scatter_rows_backward", &ops::scatter_rows_backward_autograd);
  // No gradient passes through scores and selections.
  for (const char* name : {"_token_norms", "_gla_scores", "_select_entries", "_invert_selection", "_offsets_like"}) {
    m.impl(name, torch::CppFunction::makeFallthrough());
  }
}

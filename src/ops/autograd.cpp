// Section (vii): gather and scatter are linear, and each one's gradient is its adjoint. The adjoints are functions of
// their own with these as their gradients, so second derivatives exist. Nothing is kept but the gathering.
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>
#include <utility>

#include "ops/aten_context.h"
#include "ops/saved_gathering.h"

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct PlansHolder : torch::CustomClassHolder {
  std::vector<calls::SharedPlan> plans;
};

/// Gradients arrive with any strides, among them 0 where a sum was expanded; the kernels need contiguous channels.
variable_list with_contiguous_channels(variable_list gradients) {
  for (at::Tensor& gradient : gradients) {
    if (gradient.size(-1) != 1 && gradient.stride(-1) != 1) gradient = gradient.contiguous();
  }
  return gradients;
}

using Call = void (*)(calls::CallContext&, const variable_list&, const calls::GatheringView&);

calls::Heads heads(const variable_list& x) { return view(x[0], x[1], x[2]); }

// The four maps on lists of one or three tensors.
struct GatherMap {
  static constexpr const char* kName = "lighthouse::_gather_rows";
  static constexpr Call kCall = [](auto& context, const auto& x, const auto& gathering) {
    calls::gather_rows(context, heads(x), gathering);
  };
};
struct GatherBackwardMap {
  static constexpr const char* kName = "lighthouse::_gather_rows_backward";
  static constexpr Call kCall = [](auto& context, const auto& x, const auto& gathering) {
    calls::gather_rows_backward(context, heads(x), gathering);
  };
};
struct ScatterMap {
  static constexpr const char* kName = "lighthouse::_scatter_rows";
  static constexpr Call kCall = [](auto& context, const auto& x, const auto& gathering) {
    calls::scatter_rows(context, view(x[0]), gathering);
  };
};
struct ScatterBackwardMap {
  static constexpr const char* kName = "lighthouse::_scatter_rows_backward";
  static constexpr Call kCall = [](auto& context, const auto& x, const auto& gathering) {
    calls::scatter_rows_backward(context, view(x[0]), gathering);
  };
};

template <typename Map>
variable_list call(const variable_list& x, const Gathering& gathering) {
  const Results results = run(Map::kName, x[0], [&](auto& context) { Map::kCall(context, x, view(gathering)); });
  return {results.begin(), results.end()};
}

template <typename Map, typename Adjoint>
variable_list mapped(const variable_list& x, const Gathering& gathering);

template <typename Map, typename Adjoint>
struct LinearFunction : torch::autograd::Function<LinearFunction<Map, Adjoint>> {
  static variable_list forward(AutogradContext* context, at::TensorList x, const Gathering& gathering) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    save(context, {}, gathering);
    return call<Map>(x.vec(), gathering);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const Gathering gathering = saved_gathering(context, context->get_saved_variables());
    variable_list results = mapped<Adjoint, Map>(with_contiguous_channels(gradients), gathering);
    results.emplace_back();  // of the gathering
    return results;
  }
};

bool needs_graph(const variable_list& x) {
  return at::GradMode::is_enabled() && std::ranges::any_of(x, [](const at::Tensor& y) { return y.requires_grad(); });
}

template <typename Map, typename Adjoint>
variable_list mapped(const variable_list& x, const Gathering& gathering) {
  if (!needs_graph(x)) return call<Map>(x, gathering);
  return LinearFunction<Map, Adjoint>::apply(at::TensorList(x), gathering);
}

/// Gather with the selection it makes itself, which leaves by `made`, not as results: nothing would make zero gradients
/// for index arrays in backward.
variable_list call_by_norm(at::TensorList qkv, const calls::SharedPlan& plan, Gathering* made) {
  const Results results = run("lighthouse::_gather_by_norm", qkv[0], [&](auto& context) {
    calls::gather_by_norm(context, view(qkv[0], qkv[1], qkv[2]), plan);
  });
  *made = {plan, results[3], results[4]};
  return {results[0], results[1], results[2]};
}

struct GatherByNorm : torch::autograd::Function<GatherByNorm> {
  static variable_list forward(AutogradContext* context, at::TensorList qkv, const calls::SharedPlan& plan,
                               Gathering* made) {
    const at::AutoDispatchBelowADInplaceOrView below_autograd;
    variable_list rows = call_by_norm(qkv, plan, made);
    save(context, {}, *made);
    return rows;
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const Gathering gathering = saved_gathering(context, context->get_saved_variables());
    variable_list results = mapped<GatherBackwardMap, GatherMap>(with_contiguous_channels(gradients), gathering);
    results.resize(results.size() + 2);  // of plan and made
    return results;
  }
};

}  // namespace

void save(AutogradContext* context, variable_list tensors, std::span<const Gathering> gatherings) {
  auto holder = c10::make_intrusive<PlansHolder>();
  for (const Gathering& gathering : gatherings) {
    tensors.insert(tensors.end(), {gathering.selection, gathering.slots});
    holder->plans.push_back(gathering.plan);
  }
  context->save_for_backward(std::move(tensors));
  context->saved_data["plans"] = c10::IValue::make_capsule(std::move(holder));
}

std::vector<Gathering> saved_gatherings(AutogradContext* context, const variable_list& saved) {
  const auto holder = context->saved_data["plans"].toCapsule();
  const auto& plans = static_cast<const PlansHolder&>(*holder).plans;
  std::vector<Gathering> gatherings;
  for (size_t i = saved.size() - 2 * plans.size(); const calls::SharedPlan& plan : plans) {
    gatherings.push_back({plan, saved[i], saved[i + 1]});
    i += 2;
  }
  return gatherings;
}

Rows gather_rows(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const Gathering& gathering) {
  const variable_list rows = mapped<GatherMap, GatherBackwardMap>({q, k, v}, gathering);
  return {rows[0], rows[1], rows[2]};
}

ThreeTensors gather_rows_backward(const Rows& rows, const Gathering& gathering) {
  const variable_list tokens = mapped<GatherBackwardMap, GatherMap>({rows.q, rows.k, rows.v}, gathering);
  return {tokens[0], tokens[1], tokens[2]};
}

at::Tensor scatter_rows(const at::Tensor& rows, const Gathering& gathering) {
  return mapped<ScatterMap, ScatterBackwardMap>({rows}, gathering)[0];
}

at::Tensor scatter_rows_backward(const at::Tensor& dout, const Gathering& gathering) {
  return mapped<ScatterBackwardMap, ScatterMap>({dout}, gathering)[0];
}

GatheredRows gather_by_norm(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const calls::SharedPlan& plan) {
  const variable_list inputs{q, k, v};
  Gathering gathering;
  const variable_list rows = needs_graph(inputs) ? GatherByNorm::apply(at::TensorList(inputs), plan, &gathering)
                                                 : call_by_norm(inputs, plan, &gathering);
  return {{rows[0], rows[1], rows[2]}, std::move(gathering)};
}

}  // namespace lighthouse::ops

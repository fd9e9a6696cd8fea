#include "model/recompute.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

#include <utility>

#include "model/part_clock.h"
#include "ops/saved_gathering.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct State : torch::CustomClassHolder {
  LayerFunction layer;
  std::shared_ptr<HostStash> stash;  ///< null: the input is kept by autograd
  bool offload = false;              ///< what the stash is given goes to the host
  size_t place = 0;                  ///< in the stash
};

struct RecomputedFunction : torch::autograd::Function<RecomputedFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const c10::intrusive_ptr<State>& state) {
    if (state->stash) state->place = state->offload ? state->stash->store(x) : state->stash->keep(x);
    context->saved_data["state"] = c10::IValue::make_capsule(state);
    ops::Gathering selected;
    const Residual out = state->layer({x, std::nullopt}, selected);
    ops::save(context, {state->stash ? at::Tensor() : x}, selected);
    return {out.x, *out.update};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto state = c10::static_intrusive_pointer_cast<State>(context->saved_data["state"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    ops::Gathering selected = ops::saved_gathering(context, saved);
    const at::Tensor kept = state->stash ? state->stash->fetch(state->place) : saved[0];
    const at::Tensor x = kept.detach().set_requires_grad(true);
    const at::AutoGradMode with_grad(true);
    const Residual out = state->layer({x, std::nullopt}, selected);
    torch::autograd::backward({out.x, *out.update}, {gradients[0], gradients[1]});
    return {x.grad(), at::Tensor()};
  }
};

}  // namespace

Residual recomputed(const Residual& in, LayerFunction layer, const std::shared_ptr<HostStash>& stash, bool offload) {
  enter_part(Part::kOther);
  const at::Tensor x = in.update ? in.x + *in.update : in.x;
  auto state = c10::make_intrusive<State>();
  state->layer = std::move(layer);
  state->stash = stash;
  state->offload = offload;
  const variable_list out = RecomputedFunction::apply(x, state);
  return {out[0], out[1]};
}

}  // namespace lighthouse

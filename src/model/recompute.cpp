#include "model/recompute.h"

#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <torch/csrc/autograd/custom_function.h>
#include <torch/csrc/autograd/edge.h>
#include <torch/csrc/autograd/engine.h>
#include <torch/csrc/autograd/variable.h>

#include <utility>

#include "model/part_clock.h"
#include "ops/saved_gathering.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

at::Tensor sum_of(const Residual& stream) { return stream.update ? stream.x + *stream.update : stream.x; }

struct State : torch::CustomClassHolder {
  std::vector<LayerFunction> layers;
  std::shared_ptr<HostStash> stash;  ///< null: the input is kept by autograd
  bool offload = false;              ///< what the stash is given goes to the host
  size_t place = 0;                  ///< in the stash
};

/// Where the backward of layer(x) begins. Nothing else of what it returns is there any more.
torch::autograd::edge_list ends_of(const LayerFunction& layer, const at::Tensor& x, ops::Gathering& selected) {
  const at::AutoGradMode with_grad(true);
  const Residual out = layer({x, std::nullopt}, selected, ForwardFor::kBackward);
  return {torch::autograd::impl::gradient_edge(out.x), torch::autograd::impl::gradient_edge(*out.update)};
}

struct RecomputedFunction : torch::autograd::Function<RecomputedFunction> {
  static variable_list forward(AutogradContext* context, const at::Tensor& x, const c10::intrusive_ptr<State>& state) {
    if (state->stash) state->place = state->offload ? state->stash->store(x) : state->stash->keep(x);
    context->saved_data["state"] = c10::IValue::make_capsule(state);
    std::vector<ops::Gathering> selected(state->layers.size());
    Residual stream{x, std::nullopt};
    for (size_t i = 0; i < selected.size(); ++i) {
      stream = {sum_of(std::exchange(stream, {})), std::nullopt};  // the layer runs without what was added
      stream = state->layers[i](stream, selected[i], ForwardFor::kOutput);
    }
    ops::save(context, {state->stash ? at::Tensor() : x}, selected);
    return {stream.x, *stream.update};
  }

  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto state = c10::static_intrusive_pointer_cast<State>(context->saved_data["state"].toCapsule());
    const variable_list saved = context->get_saved_variables();
    std::vector<ops::Gathering> selected = ops::saved_gatherings(context, saved);
    std::vector<at::Tensor> inputs{state->stash ? state->stash->fetch(state->place) : saved[0]};
    for (size_t i = 0; i + 1 < selected.size(); ++i) {
      const at::NoGradGuard no_grad;
      inputs.push_back(sum_of(state->layers[i]({inputs[i], std::nullopt}, selected[i], ForwardFor::kOutput)));
    }
    at::Tensor dx = gradients[0], dupdate = gradients[1];
    for (size_t i = selected.size(); i-- > 0; inputs.pop_back()) {
      const at::Tensor x = inputs[i].detach().set_requires_grad(true);
      const torch::autograd::edge_list ends = ends_of(state->layers[i], x, selected[i]);
      torch::autograd::Engine::get_default_engine().execute(ends, {std::move(dx), std::move(dupdate)},
                                                            /*keep_graph=*/false, /*create_graph=*/false,
                                                            /*accumulate_grad=*/true);
      dx = dupdate = x.grad();
    }
    return {dx, at::Tensor()};
  }
};

}  // namespace

Residual recomputed(Residual in, std::vector<LayerFunction> layers, const std::shared_ptr<HostStash>& stash,
                    bool offload) {
  enter_part(Part::kOther);
  const at::Tensor x = sum_of(std::exchange(in, {}));
  auto state = c10::make_intrusive<State>();
  state->layers = std::move(layers);
  state->stash = stash;
  state->offload = offload;
  const variable_list out = RecomputedFunction::apply(x, state);
  return {out[0], out[1]};
}

}  // namespace lighthouse

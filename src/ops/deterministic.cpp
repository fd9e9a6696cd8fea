#include "ops/deterministic.h"

#include <ATen/Context.h>
#include <torch/csrc/autograd/autograd.h>
#include <torch/csrc/autograd/custom_function.h>

namespace lighthouse::ops {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

/// The mode is global to the process; so are its readers' expectations, hence the least time. Filling fresh memory,
/// which the mode also does, would cost a pass over every output.
class DeterministicScope {
 public:
  DeterministicScope()
      : algorithms_(at::globalContext().deterministicAlgorithms()),
        warn_only_(at::globalContext().deterministicAlgorithmsWarnOnly()),
        fill_(at::globalContext().deterministicFillUninitializedMemory()) {
    at::globalContext().setDeterministicAlgorithms(true, /*warn_only=*/false);
    at::globalContext().setDeterministicFillUninitializedMemory(false);
  }
  ~DeterministicScope() {
    at::globalContext().setDeterministicAlgorithms(algorithms_, warn_only_);
    at::globalContext().setDeterministicFillUninitializedMemory(fill_);
  }
  DeterministicScope(const DeterministicScope&) = delete;
  DeterministicScope& operator=(const DeterministicScope&) = delete;

 private:
  bool algorithms_, warn_only_, fill_;
};

/// Keeps the graph of the attention inside, and runs it backward under the mode.
struct DeterministicAttention : torch::autograd::Function<DeterministicAttention> {
  static at::Tensor forward(AutogradContext* context, at::TensorList qkv, const InnerAttention* attention) {
    const DeterministicScope scope;
    const at::AutoGradMode with_graph(true);
    variable_list inside;
    for (const at::Tensor& x : qkv) inside.push_back(x.detach().requires_grad_());
    const at::Tensor out = (*attention)(inside[0], inside[1], inside[2]);
    context->save_for_backward({inside[0], inside[1], inside[2], out});
    return out.detach();
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const DeterministicScope scope;
    const variable_list saved = context->get_saved_variables();
    variable_list results = torch::autograd::grad({saved[3]}, {saved[0], saved[1], saved[2]}, gradients,
                                                  /*retain_graph=*/true);  // backward may be asked for again
    results.emplace_back();                                                // of the attention
    return results;
  }
};

}  // namespace

at::Tensor run_deterministic(const InnerAttention& attention, const at::Tensor& q, const at::Tensor& k,
                             const at::Tensor& v) {
  const variable_list inputs{q, k, v};
  return DeterministicAttention::apply(at::TensorList(inputs), &attention);
}

}  // namespace lighthouse::ops

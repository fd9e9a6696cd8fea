#include "model/embedding.h"

#include <ATen/ops/embedding.h>
#include <torch/csrc/autograd/custom_function.h>

#include "model/part_clock.h"
#include "nn/embedding.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

struct EmbeddingFunction : torch::autograd::Function<EmbeddingFunction> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& table, const at::Tensor& tokens,
                            const at::Tensor& compute_table) {
    enter_part(Part::kOther);
    context->save_for_backward({tokens});
    context->saved_data["vocab"] = table.size(0);
    return at::embedding(compute_table, tokens);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    enter_part(Part::kOther);
    const at::Tensor tokens = context->get_saved_variables()[0];
    const at::Tensor dtable =
        embedding_gradient(tokens, gradients[0].contiguous(), context->saved_data["vocab"].toInt());
    return {dtable.to(at::kFloat), at::Tensor(), at::Tensor()};
  }
};

}  // namespace

at::Tensor embed(const at::Tensor& tokens, const at::Tensor& table, const at::Tensor& compute_table) {
  return EmbeddingFunction::apply(table, tokens, compute_table);
}

}  // namespace lighthouse

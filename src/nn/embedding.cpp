#include "nn/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/embedding_dense_backward.h>

#include "nn/arguments.h"

namespace lighthouse {

at::Tensor embedding_gradient(const at::Tensor& tokens, const at::Tensor& grad, int64_t vocab) {
  nn::check_activation("embedding_gradient", "grad", grad);
  const int64_t dim = grad.size(-1);
  LIGHTHOUSE_CHECK(
      tokens.scalar_type() == at::kLong && tokens.numel() == nn::num_rows(grad) && tokens.device() == grad.device(),
      "embedding_gradient: tokens are ", c10::toString(tokens.scalar_type()), " ", tokens.sizes(), " on ",
      tokens.device(), "; must be int64, one for each row of grad ", grad.sizes());
  const at::Tensor words = tokens.reshape(-1);
  const at::Tensor rows = grad.reshape({-1, dim});
  return at::embedding_dense_backward(rows.to(nn::sum_dtype(grad)), words, vocab, /*padding_idx=*/-1,
                                      /*scale_grad_by_freq=*/false);
}

}  // namespace lighthouse

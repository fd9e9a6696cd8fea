#include "nn/embedding.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bmm.h>
#include <ATen/ops/embedding_dense_backward.h>
#include <ATen/ops/mm.h>

#include "nn/arguments.h"

namespace lighthouse {
namespace {

/// Up to this, one-hot rows are no larger than the gradients of a usual decoder.
constexpr int64_t kSmallVocabulary = 1024;
/// Tokens whose products are added inside one matrix product: enough of these for all processors, few results to add.
constexpr int64_t kChunk = 3072;

/// One-hot matrix products of bf16, exact, with fp32 sums, for tokens on CUDA. ATen's gradient sorts the tokens, and
/// one thread adds all partial sums of a word and channel, one for every ten tokens: where a few words make up most of
/// the text, as letters do, it waits for the most common one. It neither copies to the host nor adds atomically, so it
/// serves large vocabularies.
at::Tensor one_hot_gradient(const at::Tensor& words, const at::Tensor& rows, int64_t vocab) {
  const int64_t dim = rows.size(1);
  const int64_t chunks = words.size(0) / kChunk;
  const int64_t whole = chunks * kChunk;
  const at::Tensor one_hot = words.unsqueeze(1).eq(at::arange(vocab, words.options())).to(rows.scalar_type());
  at::Tensor sum;
  if (chunks > 0) {
    sum = at::bmm(one_hot.slice(0, 0, whole).view({chunks, kChunk, vocab}).transpose(1, 2),
                  rows.slice(0, 0, whole).view({chunks, kChunk, dim}), at::kFloat)
              .sum(0);
  }
  if (whole == words.size(0)) return sum;
  const at::Tensor rest = at::mm(one_hot.slice(0, whole).t(), rows.slice(0, whole), at::kFloat);
  return chunks > 0 ? sum.add_(rest) : rest;
}

}  // namespace

at::Tensor embedding_gradient(const at::Tensor& tokens, const at::Tensor& grad, int64_t vocab) {
  nn::check_activation("embedding_gradient", "grad", grad);
  const int64_t dim = grad.size(-1);
  LIGHTHOUSE_CHECK(
      tokens.scalar_type() == at::kLong && tokens.numel() == nn::num_rows(grad) && tokens.device() == grad.device(),
      "embedding_gradient: tokens are ", c10::toString(tokens.scalar_type()), " ", tokens.sizes(), " on ",
      tokens.device(), "; must be int64, one for each row of grad ", grad.sizes());
  const at::Tensor words = tokens.reshape(-1);
  const at::Tensor rows = grad.reshape({-1, dim});
  if (grad.is_cuda() && grad.scalar_type() == at::kBFloat16 && vocab <= kSmallVocabulary && grad.numel() > 0) {
    return one_hot_gradient(words, rows, vocab);
  }
  return at::embedding_dense_backward(rows.to(nn::sum_dtype(grad)), words, vocab, /*padding_idx=*/-1,
                                      /*scale_grad_by_freq=*/false);
}

}  // namespace lighthouse

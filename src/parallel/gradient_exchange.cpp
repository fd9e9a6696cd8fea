#include "parallel/gradient_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <deque>
#include <utility>

#include "lighthouse/check.h"
#include "parallel/traffic.h"
#include "parallel/tree_sum.h"

namespace lighthouse {
namespace {

std::vector<int64_t> sizes_of(const std::vector<at::Tensor>& tensors) {
  std::vector<int64_t> sizes;
  for (const at::Tensor& tensor : tensors) {
    LIGHTHOUSE_CHECK(tensor.is_contiguous() && tensor.scalar_type() == tensors.front().scalar_type() &&
                         tensor.device() == tensors.front().device(),
                     "gradient exchange: parameters must be contiguous, of one dtype and on one device");
    sizes.push_back(tensor.numel());
  }
  return sizes;
}

std::vector<at::Tensor> views_of(const std::vector<at::Tensor>& tensors, const std::vector<Piece>& pieces) {
  std::vector<at::Tensor> views;
  for (const Piece& piece : pieces) {
    views.push_back(tensors[static_cast<size_t>(piece.parameter)].view({-1}).slice(0, piece.begin, piece.end));
  }
  return views;
}

std::vector<int64_t> elements_of(const std::vector<std::vector<Piece>>& bucket) {
  std::vector<int64_t> elements;
  for (const std::vector<Piece>& pieces : bucket) {
    elements.push_back(0);
    for (const Piece& piece : pieces) elements.back() += piece.size();
  }
  return elements;
}

void copy_to(const std::vector<at::Tensor>& views, const at::Tensor& flat) {
  int64_t begin = 0;
  for (const at::Tensor& view : views) {
    view.copy_(flat.slice(0, begin, begin + view.numel()));
    begin += view.numel();
  }
}

/// Sends all buckets, in order, and takes what came by one while the next are under way.
template <typename Bucket, typename Send, typename Take>
void exchange_buckets(const std::vector<Bucket>& buckets, const Send& send, const Take& take) {
  std::deque<decltype(send(buckets.front()))> under_way;
  for (const Bucket& bucket : buckets) {
    under_way.push_back(send(bucket));
    if (static_cast<int64_t>(under_way.size()) < kBucketsUnderWay) continue;
    take(std::move(under_way.front()));
    under_way.pop_front();
  }
  for (auto& sent : under_way) take(std::move(sent));
}

}  // namespace

GradientExchange::GradientExchange(std::vector<at::Tensor> parameters, Group& group, int64_t piece_elements,
                                   int64_t bucket_elements)
    : parameters_(std::move(parameters)),
      group_(group),
      pieces_(pieces_of(sizes_of(parameters_), piece_elements)),
      owners_(owners_of(pieces_, group.size())),
      buckets_(stretches_of(pieces_, owners_, group.size(), stretch_elements(bucket_elements, group.size()))) {}

void GradientExchange::reduce(const std::vector<at::Tensor>& gradients) const {
  LIGHTHOUSE_CHECK(sizes_of(gradients) == sizes_of(parameters_), "gradient exchange: gradients of other parameters");
  if (group_.size() == 1) return;
  const at::NoGradGuard no_grad;
  exchange_buckets(
      buckets_, [&](const Bucket& bucket) { return send_gradients(gradients, bucket); },
      [&](Sent sent) { take_sums(gradients, std::move(sent)); });
}

GradientExchange::Sent GradientExchange::send_gradients(const std::vector<at::Tensor>& gradients,
                                                        const Bucket& bucket) const {
  std::vector<at::Tensor> by_owner;
  for (const std::vector<Piece>& pieces : bucket) {
    for (at::Tensor& view : views_of(gradients, pieces)) by_owner.push_back(std::move(view));
  }
  const at::Tensor in = at::cat(by_owner);
  const std::vector<int64_t> elements = elements_of(bucket);
  const int64_t own = elements[static_cast<size_t>(group_.rank())];
  const at::Tensor out = at::empty({group_.size() * own}, in.options());
  const std::vector<int64_t> of_each(elements.size(), own);
  return {&bucket, in, out, group_.all_to_all({{out, in, of_each, elements}}, kSumOfGradients)};
}

void GradientExchange::take_sums(const std::vector<at::Tensor>& gradients, Sent sent) const {
  sent.pending.wait();
  if (sent.out.numel() == 0) return;
  copy_to(views_of(gradients, (*sent.bucket)[static_cast<size_t>(group_.rank())]),
          tree_sum(sent.out.chunk(group_.size())));
}

std::vector<Piece> GradientExchange::owned() const {
  std::vector<Piece> result;
  for (size_t piece = 0; piece < pieces_.size(); ++piece) {
    if (owns(piece)) result.push_back(pieces_[piece]);
  }
  return result;
}

void GradientExchange::spread() const {
  if (group_.size() == 1) return;
  const at::NoGradGuard no_grad;
  exchange_buckets(
      buckets_, [&](const Bucket& bucket) { return send_parameters(bucket); },
      [&](Sent sent) { take_parameters(std::move(sent)); });
}

GradientExchange::Sent GradientExchange::send_parameters(const Bucket& bucket) const {
  const std::vector<int64_t> elements = elements_of(bucket);
  const int64_t most = *std::max_element(elements.begin(), elements.end());
  const at::Tensor in = at::empty({most}, parameters_.front().options().requires_grad(false));
  int64_t begin = 0;
  for (const at::Tensor& view : views_of(parameters_, bucket[static_cast<size_t>(group_.rank())])) {
    in.slice(0, begin, begin + view.numel()).copy_(view);
    begin += view.numel();
  }
  const at::Tensor out = at::empty({group_.size(), most}, in.options());
  return {&bucket, in, out, group_.all_gather(out, in, kUpdatedParameters)};
}

void GradientExchange::take_parameters(Sent sent) const {
  sent.pending.wait();
  for (int64_t rank = 0; rank < group_.size(); ++rank) {
    if (rank != group_.rank())
      copy_to(views_of(parameters_, (*sent.bucket)[static_cast<size_t>(rank)]), sent.out[rank]);
  }
}

}  // namespace lighthouse

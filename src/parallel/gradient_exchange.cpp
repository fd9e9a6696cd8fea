#include "parallel/gradient_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <utility>

#include "lighthouse/check.h"
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

/// Elements of tensors in order, as views.
at::Tensor view_of(const std::vector<at::Tensor>& tensors, const Piece& piece) {
  return tensors[static_cast<size_t>(piece.parameter)].view({-1}).slice(0, piece.begin, piece.end);
}

void copy_to(const std::vector<at::Tensor>& views, const at::Tensor& flat) {
  int64_t begin = 0;
  for (const at::Tensor& view : views) {
    view.copy_(flat.slice(0, begin, begin + view.numel()));
    begin += view.numel();
  }
}

}  // namespace

GradientExchange::GradientExchange(std::vector<at::Tensor> parameters, Group& group, int64_t piece_elements,
                                   int64_t bucket_elements)
    : parameters_(std::move(parameters)),
      group_(group),
      pieces_(pieces_of(sizes_of(parameters_), piece_elements)),
      owners_(owners_of(pieces_, group.size())) {
  for (size_t begin = 0, end = 0; begin < pieces_.size(); begin = end) {
    Bucket bucket{begin, begin, std::vector<int64_t>(static_cast<size_t>(group_.size()), 0)};
    for (int64_t total = 0; bucket.end < pieces_.size() && total < bucket_elements; ++bucket.end) {
      const int64_t size = pieces_[bucket.end].size();
      bucket.elements[static_cast<size_t>(owners_[bucket.end])] += size;
      total += size;
    }
    end = bucket.end;
    buckets_.push_back(std::move(bucket));
  }
}

std::vector<at::Tensor> GradientExchange::owned(const std::vector<at::Tensor>& tensors, const Bucket& bucket,
                                                int64_t rank) const {
  std::vector<at::Tensor> views;
  for (size_t piece = bucket.begin; piece < bucket.end; ++piece) {
    if (owners_[piece] == rank) views.push_back(view_of(tensors, pieces_[piece]));
  }
  return views;
}

void GradientExchange::reduce(const std::vector<at::Tensor>& gradients) const {
  LIGHTHOUSE_CHECK(sizes_of(gradients) == sizes_of(parameters_), "gradient exchange: gradients of other parameters");
  if (group_.size() == 1) return;
  const at::NoGradGuard no_grad;
  for (const Bucket& bucket : buckets_) reduce(gradients, bucket);
}

void GradientExchange::reduce(const std::vector<at::Tensor>& gradients, const Bucket& bucket) const {
  const auto size = static_cast<size_t>(group_.size());
  std::vector<at::Tensor> by_owner;
  for (int64_t rank = 0; rank < group_.size(); ++rank) {
    for (at::Tensor& view : owned(gradients, bucket, rank)) by_owner.push_back(std::move(view));
  }
  const at::Tensor in = at::cat(by_owner);
  const int64_t own = bucket.elements[static_cast<size_t>(group_.rank())];
  const at::Tensor out = at::empty({group_.size() * own}, in.options());
  group_.all_to_all(out, in, std::vector<int64_t>(size, own), bucket.elements, "sum of gradients").wait();
  if (own == 0) return;
  copy_to(owned(gradients, bucket, group_.rank()), tree_sum(out.chunk(group_.size())));
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
  for (const Bucket& bucket : buckets_) spread(bucket);
}

void GradientExchange::spread(const Bucket& bucket) const {
  const int64_t most = *std::max_element(bucket.elements.begin(), bucket.elements.end());
  const at::Tensor in = at::empty({most}, parameters_.front().options().requires_grad(false));
  int64_t begin = 0;
  for (const at::Tensor& view : owned(parameters_, bucket, group_.rank())) {
    in.slice(0, begin, begin + view.numel()).copy_(view);
    begin += view.numel();
  }
  const at::Tensor out = at::empty({group_.size(), most}, in.options());
  group_.all_gather(out, in, "updated parameters").wait();
  for (int64_t rank = 0; rank < group_.size(); ++rank) {
    if (rank != group_.rank()) copy_to(owned(parameters_, bucket, rank), out[rank]);
  }
}

}  // namespace lighthouse

#include "parallel/gradient_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <chrono>
#include <string>
#include <utility>

#include "lighthouse/check.h"
#include "parallel/traffic.h"
#include "parallel/tree_sum.h"

namespace lighthouse {
namespace {

void check_alike(const at::Tensor& tensor, const at::Tensor& of, const char* what) {
  LIGHTHOUSE_CHECK(tensor.scalar_type() == of.scalar_type() && tensor.device() == of.device(),
                   "gradient exchange: ", what, " must be of one dtype and on one device");
}

void check_contiguous(const at::Tensor& tensor, const char* what) {
  LIGHTHOUSE_CHECK(tensor.is_contiguous(), "gradient exchange: ", what, " must be contiguous");
}

std::vector<int64_t> sizes_of(const std::vector<at::Tensor>& tensors) {
  std::vector<int64_t> sizes;
  for (const at::Tensor& tensor : tensors) {
    check_alike(tensor, tensors.front(), "parameters");
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

/// The pieces of what is defined.
Bucket part_of(const Bucket& bucket, const std::vector<at::Tensor>& tensors) {
  Bucket part(bucket.size());
  for (size_t rank = 0; rank < bucket.size(); ++rank) {
    for (const Piece& piece : bucket[rank]) {
      if (tensors[static_cast<size_t>(piece.parameter)].defined()) part[rank].push_back(piece);
    }
  }
  return part;
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

/// All that is on its way to all ranks from where `tensors` are, and back to there.
SentBucket send_pieces(const std::vector<at::Tensor>& tensors, const Bucket& bucket, at::TensorOptions options,
                       Group& group) {
  const std::vector<int64_t> elements = elements_of(bucket);
  const int64_t most = *std::max_element(elements.begin(), elements.end());
  const at::Tensor in = at::empty({most}, options);
  int64_t begin = 0;
  for (const at::Tensor& view : views_of(tensors, bucket[static_cast<size_t>(group.rank())])) {
    in.slice(0, begin, begin + view.numel()).copy_(view);
    begin += view.numel();
  }
  const at::Tensor out = at::empty({group.size(), most}, options);
  return {&bucket, in, out, group.all_gather(out, in, kUpdatedParameters)};
}

void take_pieces(const std::vector<at::Tensor>& tensors, const SentBucket& sent, const Group& group) {
  for (int64_t rank = 0; rank < group.size(); ++rank) {
    if (rank != group.rank()) copy_to(views_of(tensors, (*sent.bucket)[static_cast<size_t>(rank)]), sent.out[rank]);
  }
}

}  // namespace

GradientExchange::GradientExchange(std::vector<at::Tensor> parameters, Group& group, int64_t piece_elements,
                                   int64_t bucket_elements)
    : parameters_(std::move(parameters)),
      group_(group),
      side_(parameters_.empty() ? c10::Device(c10::kCPU) : parameters_.front().device()),
      pieces_(pieces_of(sizes_of(parameters_), piece_elements)),
      owners_(owners_of(pieces_, group.size())),
      buckets_(stretches_of(pieces_, owners_, group.size(), stretch_elements(bucket_elements, group.size()))) {}

std::vector<Piece> GradientExchange::owned() const {
  std::vector<Piece> result;
  for (size_t piece = 0; piece < pieces_.size(); ++piece) {
    if (owns(piece)) result.push_back(pieces_[piece]);
  }
  return result;
}

void GradientExchange::reduce(const std::vector<at::Tensor>& gradients) const {
  LIGHTHOUSE_CHECK(gradients.size() == parameters_.size(), "gradient exchange: ", gradients.size(), " gradients of ",
                   parameters_.size(), " parameters");
  GradientReduction reduction(*this);
  for (size_t i = gradients.size(); i-- > 0;) reduction.add(i, gradients[i]);
  reduction.finish();
}

void GradientExchange::spread(const std::vector<at::Tensor>& tensors) const {
  LIGHTHOUSE_CHECK(tensors.size() == parameters_.size(), "gradient exchange: ", tensors.size(), " tensors of ",
                   parameters_.size(), " parameters");
  const auto first = std::find_if(tensors.begin(), tensors.end(), [](const at::Tensor& x) { return x.defined(); });
  if (first == tensors.end()) return;
  for (const at::Tensor& tensor : tensors) {
    if (!tensor.defined()) continue;
    check_alike(tensor, *first, "what is spread");
    check_contiguous(tensor, "what is spread");
  }
  if (group_.size() == 1) return;
  const at::NoGradGuard no_grad;
  const at::TensorOptions options = parameters_.front().options().dtype(first->dtype()).requires_grad(false);
  std::deque<Bucket> parts;  // which stay where they are
  side_.run([&] {
    BucketsUnderWay under_way([&](const SentBucket& sent) { take_pieces(tensors, sent, group_); });
    for (const Bucket& bucket : buckets_) {
      const Bucket& part = parts.emplace_back(part_of(bucket, tensors));
      const bool is_empty = std::all_of(part.begin(), part.end(), [](const auto& pieces) { return pieces.empty(); });
      if (!is_empty) under_way.add(send_pieces(tensors, part, options, group_));
    }
    under_way.finish();
  });
  side_.join();
}

void BucketsUnderWay::add(SentBucket sent) {
  sent_.push_back(std::move(sent));
  if (static_cast<int64_t>(sent_.size()) == kBucketsUnderWay) take_oldest();
}

void BucketsUnderWay::finish() {
  while (!sent_.empty()) take_oldest();
}

void BucketsUnderWay::take_oldest() {
  using Clock = std::chrono::steady_clock;
  SentBucket oldest = std::move(sent_.front());
  sent_.pop_front();
  const Clock::time_point begin = Clock::now();
  oldest.pending.wait();
  waited_seconds_ += std::chrono::duration<double>(Clock::now() - begin).count();
  take_(std::move(oldest));
}

GradientReduction::GradientReduction(const GradientExchange& exchange)
    : exchange_(exchange),
      gradients_(exchange.parameters_.size()),
      num_left_(exchange.buckets_.size()),
      under_way_([this](SentBucket sent) { take(std::move(sent)); }) {}

void GradientReduction::add(size_t parameter, const at::Tensor& gradient) {
  const at::Tensor& of = exchange_.parameters_[parameter];
  check_alike(gradient, of, "gradients");
  check_contiguous(gradient, "gradients");
  LIGHTHOUSE_CHECK(gradient.numel() == of.numel(), "gradient exchange: a gradient of ", gradient.numel(),
                   " elements for a parameter of ", of.numel());
  if (exchange_.group_.size() == 1) return;
  gradients_[parameter] = gradient;
  const at::NoGradGuard no_grad;
  for (; num_left_ > 0 && is_there(exchange_.buckets_[num_left_ - 1]); --num_left_) {
    exchange_.side_.run([&] { under_way_.add(send(exchange_.buckets_[num_left_ - 1])); });
  }
}

void GradientReduction::finish() {
  if (exchange_.group_.size() == 1) return;
  for (size_t i = 0; i < gradients_.size(); ++i) {
    LIGHTHOUSE_CHECK(gradients_[i].defined(), "gradient exchange: parameter ", i, " has no gradient");
  }
  const at::NoGradGuard no_grad;
  exchange_.side_.run([&] { under_way_.finish(); });
  exchange_.side_.join();
}

bool GradientReduction::is_there(const Bucket& bucket) const {
  for (const std::vector<Piece>& pieces : bucket) {
    for (const Piece& piece : pieces) {
      if (!gradients_[static_cast<size_t>(piece.parameter)].defined()) return false;
    }
  }
  return true;
}

SentBucket GradientReduction::send(const Bucket& bucket) const {
  Group& group = exchange_.group_;
  std::vector<at::Tensor> by_owner;
  for (const std::vector<Piece>& pieces : bucket) {
    for (at::Tensor& view : views_of(gradients_, pieces)) by_owner.push_back(std::move(view));
  }
  const at::Tensor in = at::cat(by_owner);
  const std::vector<int64_t> elements = elements_of(bucket);
  const int64_t own = elements[static_cast<size_t>(group.rank())];
  const at::Tensor out = at::empty({group.size() * own}, in.options());
  const std::vector<int64_t> of_each(elements.size(), own);
  const size_t num_buckets = exchange_.buckets_.size();
  const std::string place = detail::concat("bucket ", num_buckets + 1 - num_left_, " of ", num_buckets);
  return {&bucket, in, out, group.all_to_all({{out, in, of_each, elements}}, kSumOfGradients, place)};
}

void GradientReduction::take(SentBucket sent) const {
  if (sent.out.numel() == 0) return;
  Group& group = exchange_.group_;
  copy_to(views_of(gradients_, (*sent.bucket)[static_cast<size_t>(group.rank())]),
          tree_sum(sent.out.chunk(group.size())));
}

}  // namespace lighthouse

#include "parallel/head_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <cstdint>
#include <limits>
#include <numeric>
#include <utility>

#include "parallel/traffic.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const Span& own(const std::vector<Span>& spans, const Group& group) { return spans[static_cast<size_t>(group.rank())]; }

bool overlap(const std::vector<Span>& spans) {
  for (size_t i = 1; i < spans.size(); ++i) {
    if (spans[i].begin < spans[i - 1].end) return true;
  }
  return false;
}

/// Whether blocks of `x` along `dim` lie behind one another.
bool is_outermost(const at::Tensor& x, int64_t dim) {
  for (int64_t before = 0; before < dim; ++before) {
    if (x.size(before) != 1) return false;
  }
  return true;
}

/// Whether x is one of elements of 16 bytes, too, which make up its rows.
bool has_wide_elements(const at::Tensor& x) {
  constexpr int64_t kWide = 16;
  const auto fits = [&](int64_t elements) { return elements * x.element_size() % kWide == 0; };
  const bool aligned = reinterpret_cast<uintptr_t>(x.const_data_ptr()) % kWide == 0 && fits(x.storage_offset());
  return aligned && x.stride(3) == 1 && fits(x.size(3)) && fits(x.stride(0)) && fits(x.stride(1)) && fits(x.stride(2));
}

/// Strided copies of wide elements are faster.
void copy_rows(const at::Tensor& to, const at::Tensor& from) {
  const bool wide = has_wide_elements(to) && has_wide_elements(from);
  const auto elements = [&](const at::Tensor& x) { return wide ? x.view(at::kComplexDouble) : x; };
  elements(to).copy_(elements(from));
}

/// The blocks of x along `dim`, one for each rank, behind one another: [rows, D].
at::Tensor in_order_of_ranks(const at::Tensor& x, int64_t dim, const std::vector<Span>& spans) {
  if (x.is_contiguous() && is_outermost(x, dim) && !overlap(spans)) return x.view({-1, x.size(3)});
  int64_t size = 0;
  for (const Span& span : spans) size += span.size();
  const int64_t rows_each = x.numel() / x.size(3) / x.size(dim);
  at::Tensor message = at::empty({rows_each * size, x.size(3)}, x.options());
  int64_t begin = 0;
  for (const Span& span : spans) {
    const at::Tensor block = x.slice(dim, span.begin, span.end);
    const at::Tensor place = message.slice(0, begin, begin + rows_each * span.size()).view(block.sizes());
    copy_rows(place, block);
    begin += rows_each * span.size();
  }
  return message;
}

using SpansOfTensors = std::vector<const std::vector<Span>*>;

/// x, cut along `split` as `in_spans` say, goes to the ranks; what comes is cut alike, and each rank's part along
/// `join` as `out_spans` say.
ExchangedBlocks start_exchange(const std::vector<at::Tensor>& x, int64_t split, const SpansOfTensors& in_spans,
                               int64_t join, const SpansOfTensors& out_spans, const char* what, Group& group) {
  std::vector<AllToAll> parts;
  std::vector<at::Tensor> sent, messages;
  std::vector<std::vector<at::Tensor>> blocks;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t batch = x[i].size(0), head_dim = x[i].size(3);
    const Span &of_split = own(*in_spans[i], group), &of_join = own(*out_spans[i], group);
    AllToAll part{{},
                  in_order_of_ranks(x[i], split, *in_spans[i]),
                  exchange_counts(of_split, *out_spans[i], batch),
                  exchange_counts(of_join, *in_spans[i], batch)};
    const int64_t num_rows = std::accumulate(part.out_counts.begin(), part.out_counts.end(), int64_t{0});
    part.out = at::empty({num_rows, head_dim}, x[i].options());
    blocks.push_back(part.out.split_with_sizes(part.out_counts));
    for (size_t rank = 0; rank < blocks.back().size(); ++rank) {
      std::vector<int64_t> shape = x[i].sizes().vec();
      shape[static_cast<size_t>(split)] = of_split.size();
      shape[static_cast<size_t>(join)] = (*out_spans[i])[rank].size();
      blocks.back()[rank] = blocks.back()[rank].view(shape);
    }
    sent.push_back(part.in);
    messages.push_back(part.out);
    parts.push_back(std::move(part));
  }
  Pending pending = group.all_to_all(parts, what);
  return {std::move(sent), std::move(messages), std::move(blocks), std::move(pending)};
}

at::Tensor joined(const std::vector<at::Tensor>& blocks, const at::Tensor& message, int64_t dim) {
  if (!is_outermost(blocks.front(), dim)) return at::cat(blocks, dim);
  std::vector<int64_t> shape = blocks.front().sizes().vec();
  shape[static_cast<size_t>(dim)] = -1;
  return message.view(shape);
}

/// Blocks of heads that overlap, added.
at::Tensor sum_of_heads(const std::vector<at::Tensor>& blocks, const std::vector<Span>& heads, int64_t dim) {
  const at::Tensor& first = blocks.front();
  const at::ScalarType sum_type = first.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  std::vector<int64_t> shape = first.sizes().vec();
  shape[static_cast<size_t>(dim)] = heads.back().end;
  const at::Tensor sum = at::zeros(shape, first.options().dtype(sum_type));
  for (size_t rank = 0; rank < heads.size(); ++rank) {
    sum.slice(dim, heads[rank].begin, heads[rank].end).add_(blocks[rank]);
  }
  return sum.to(first.scalar_type());
}

SpansOfTensors heads_of(const HeadExchange& exchange) {
  SpansOfTensors spans;
  for (const std::vector<Span>& heads : exchange.heads) spans.push_back(&heads);
  return spans;
}
SpansOfTensors rows_of(const HeadExchange& exchange) { return SpansOfTensors(exchange.heads.size(), &exchange.rows); }

ExchangedBlocks start_to_rows(const variable_list& x, const HeadExchange& exchange) {
  const auto& [heads, rows] = exchange.layout;
  return start_exchange(x, rows, rows_of(exchange), heads, heads_of(exchange), kHeadsForRows, *exchange.group);
}

variable_list all_rows(const variable_list& x, const HeadExchange& exchange) {
  return SentToHeads(x, exchange).finish();
}

variable_list all_heads(const variable_list& x, const HeadExchange& exchange) {
  ExchangedBlocks exchanged = start_to_rows(x, exchange);
  exchanged.pending.wait();
  const int64_t dim = exchange.layout.heads;
  variable_list result;
  for (size_t i = 0; i < x.size(); ++i) {
    const std::vector<Span>& heads = exchange.heads[i];
    result.push_back(overlap(heads) ? sum_of_heads(exchanged.blocks[i], heads, dim)
                                    : joined(exchanged.blocks[i], exchanged.messages[i], dim));
  }
  return result;
}

/// Kept for backward.
struct KeptExchange : torch::CustomClassHolder {
  explicit KeptExchange(HeadExchange of_exchange) : exchange(std::move(of_exchange)) {}
  HeadExchange exchange;
};
using KeptPtr = c10::intrusive_ptr<KeptExchange>;
using Move = variable_list (*)(const variable_list&, const HeadExchange&);

template <Move kForward, Move kBackward>
struct Exchanged : torch::autograd::Function<Exchanged<kForward, kBackward>> {
  static variable_list forward(AutogradContext* context, at::TensorList x, const KeptPtr& kept) {
    context->saved_data["exchange"] = c10::IValue::make_capsule(kept);
    return kForward(x.vec(), kept->exchange);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const auto capsule = context->saved_data["exchange"].toCapsule();
    variable_list result = kBackward(gradients, static_cast<const KeptExchange&>(*capsule).exchange);
    result.emplace_back();
    return result;
  }
};

}  // namespace

SentToHeads::SentToHeads(const std::vector<at::Tensor>& x, const HeadExchange& exchange)
    : blocks_(start_exchange(x, exchange.layout.heads, heads_of(exchange), exchange.layout.rows, rows_of(exchange),
                             kRowsForHeads, *exchange.group)),
      rows_(exchange.layout.rows) {}

std::vector<at::Tensor> SentToHeads::finish() {
  blocks_.pending.wait();
  variable_list result;
  for (size_t i = 0; i < blocks_.blocks.size(); ++i) {
    result.push_back(joined(blocks_.blocks[i], blocks_.messages[i], rows_));
  }
  return result;
}

std::vector<at::Tensor> to_heads(const std::vector<at::Tensor>& x, const HeadExchange& exchange) {
  if (exchange.group->size() == 1) return x;
  return Exchanged<all_rows, all_heads>::apply(at::TensorList(x), c10::make_intrusive<KeptExchange>(exchange));
}

std::vector<at::Tensor> to_rows(const std::vector<at::Tensor>& x, const HeadExchange& exchange) {
  if (exchange.group->size() == 1) return x;
  return Exchanged<all_heads, all_rows>::apply(at::TensorList(x), c10::make_intrusive<KeptExchange>(exchange));
}

std::vector<at::Tensor> scores_to_rows(const std::vector<at::Tensor>& scores, const std::vector<Span>& heads,
                                       const std::vector<Span>& rows, Group& group) {
  if (group.size() == 1) return scores;
  const at::NoGradGuard no_grad;
  variable_list x;
  for (const at::Tensor& of_heads : scores) x.push_back(of_heads.unsqueeze(3));
  const HeadExchange exchange{std::vector<std::vector<Span>>(scores.size(), heads), rows, &group};
  ExchangedBlocks exchanged = start_to_rows(x, exchange);
  exchanged.pending.wait();
  std::vector<at::Tensor> result;
  for (const std::vector<at::Tensor>& blocks : exchanged.blocks) {
    const at::Tensor& first = blocks.front();
    const at::Tensor largest = at::full({first.size(0), heads.back().end, first.size(2)},
                                        -std::numeric_limits<double>::infinity(), first.options());
    for (size_t rank = 0; rank < heads.size(); ++rank) {
      at::Tensor of_rank = largest.slice(1, heads[rank].begin, heads[rank].end);
      at::maximum_out(of_rank, of_rank, blocks[rank].squeeze(3));
    }
    result.push_back(largest);
  }
  return result;
}

}  // namespace lighthouse

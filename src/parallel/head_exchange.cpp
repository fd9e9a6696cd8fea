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

template <typename T>
const T& own(const std::vector<T>& of_ranks, const Group& group) {
  return of_ranks[static_cast<size_t>(group.rank())];
}

std::vector<HeadBlock> parts_of(const HeadBlock& whole, const std::vector<HeadBlock>& blocks) {
  std::vector<HeadBlock> parts;
  for (const HeadBlock& block : blocks) parts.push_back(common_part(whole, block));
  return parts;
}

/// Whether the parts of `whole` [B, .., .., D] lie behind one another in memory and make it up.
bool lie_in_order(const HeadBlock& whole, const std::vector<HeadBlock>& parts, int64_t batch, HeadLayout layout) {
  const bool heads_first = layout.heads < layout.rows;
  const auto outer = [&](const HeadBlock& block) { return heads_first ? block.heads : block.rows; };
  const auto inner = [&](const HeadBlock& block) { return heads_first ? block.rows : block.heads; };
  int64_t end = 0;
  for (const HeadBlock& part : parts) {
    if (part.size() == 0) continue;
    if (outer(part).size() > 1 && inner(part) != inner(whole)) return false;
    const int64_t begin =
        (outer(part).begin - outer(whole).begin) * inner(whole).size() + inner(part).begin - inner(whole).begin;
    if (begin != end) return false;
    end += part.size();
  }
  return batch == 1 && end == whole.size();
}

/// The part of x, which is `whole`.
at::Tensor slice(const at::Tensor& x, const HeadBlock& whole, const HeadBlock& part, HeadLayout layout) {
  return x.narrow(layout.heads, part.heads.begin - whole.heads.begin, part.heads.size())
      .narrow(layout.rows, part.rows.begin - whole.rows.begin, part.rows.size());
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

/// The parts of x, which is `whole`, behind one another: [rows, D].
at::Tensor in_order_of_ranks(const at::Tensor& x, const HeadBlock& whole, const std::vector<HeadBlock>& parts,
                             HeadLayout layout) {
  const int64_t batch = x.size(0), head_dim = x.size(3);
  if (x.is_contiguous() && lie_in_order(whole, parts, batch, layout)) return x.view({-1, head_dim});
  int64_t num_rows = 0;
  for (const HeadBlock& part : parts) num_rows += batch * part.size();
  at::Tensor message = at::empty({num_rows, head_dim}, x.options());
  int64_t begin = 0;
  for (const HeadBlock& part : parts) {
    if (part.size() == 0) continue;
    const at::Tensor block = slice(x, whole, part, layout);
    const at::Tensor place = message.narrow(0, begin, batch * part.size()).view(block.sizes());
    copy_rows(place, block);
    begin += batch * part.size();
  }
  return message;
}

std::vector<int64_t> shape_of(const at::Tensor& like, const HeadBlock& block, HeadLayout layout) {
  std::vector<int64_t> shape = like.sizes().vec();
  shape[static_cast<size_t>(layout.heads)] = block.heads.size();
  shape[static_cast<size_t>(layout.rows)] = block.rows.size();
  return shape;
}

using BlocksOfTensors = std::vector<std::vector<HeadBlock>>;

/// x[i], of which ranks have from[i], goes to those that are to have to[i].
ExchangedBlocks start_exchange(const std::vector<at::Tensor>& x, const BlocksOfTensors& from, const BlocksOfTensors& to,
                               HeadLayout layout, const char* what, Group& group) {
  std::vector<AllToAll> messages;
  std::vector<at::Tensor> sent;
  std::vector<ComingBlocks> tensors;
  for (size_t i = 0; i < x.size(); ++i) {
    const int64_t batch = x[i].size(0);
    const HeadBlock &mine = own(from[i], group), &wanted = own(to[i], group);
    AllToAll message{{},
                     in_order_of_ranks(x[i], mine, parts_of(mine, to[i]), layout),
                     exchange_counts(wanted, from[i], batch),
                     exchange_counts(mine, to[i], batch)};
    const int64_t num_rows = std::accumulate(message.out_counts.begin(), message.out_counts.end(), int64_t{0});
    message.out = at::empty({num_rows, x[i].size(3)}, x[i].options());
    ComingBlocks coming{wanted, parts_of(wanted, from[i]), message.out,
                        message.out.split_with_sizes(message.out_counts)};
    for (size_t rank = 0; rank < coming.parts.size(); ++rank) {
      coming.blocks[rank] = coming.blocks[rank].view(shape_of(x[i], coming.parts[rank], layout));
    }
    sent.push_back(message.in);
    tensors.push_back(std::move(coming));
    messages.push_back(std::move(message));
  }
  Pending pending = group.all_to_all(messages, what);
  return {std::move(sent), std::move(tensors), layout, std::move(pending)};
}

/// Blocks of which several ranks have made parts, added.
at::Tensor sum_of(const ComingBlocks& coming, HeadLayout layout) {
  const at::Tensor& first = coming.blocks.front();
  const at::ScalarType sum_type = first.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor sum = at::zeros(shape_of(first, coming.whole, layout), first.options().dtype(sum_type));
  for (size_t rank = 0; rank < coming.blocks.size(); ++rank) {
    if (coming.parts[rank].size() > 0) slice(sum, coming.whole, coming.parts[rank], layout).add_(coming.blocks[rank]);
  }
  return sum.to(first.scalar_type());
}

/// Blocks of which one rank each has made.
at::Tensor joined(const ComingBlocks& coming, HeadLayout layout) {
  const at::Tensor& first = coming.blocks.front();
  const std::vector<int64_t> shape = shape_of(first, coming.whole, layout);
  if (lie_in_order(coming.whole, coming.parts, first.size(0), layout)) return coming.message.view(shape);
  std::vector<at::Tensor> blocks;
  bool whole_heads = true, whole_rows = true;
  for (size_t rank = 0; rank < coming.blocks.size(); ++rank) {
    const HeadBlock& part = coming.parts[rank];
    if (part.size() == 0) continue;
    blocks.push_back(coming.blocks[rank]);
    whole_heads = whole_heads && part.heads == coming.whole.heads;
    whole_rows = whole_rows && part.rows == coming.whole.rows;
  }
  if (whole_heads) return at::cat(blocks, layout.rows);
  if (whole_rows) return at::cat(blocks, layout.heads);
  at::Tensor result = at::empty(shape, first.options());
  for (size_t rank = 0; rank < coming.blocks.size(); ++rank) {
    const HeadBlock& part = coming.parts[rank];
    if (part.size() > 0) copy_rows(slice(result, coming.whole, part, layout), coming.blocks[rank]);
  }
  return result;
}

variable_list finished(ExchangedBlocks& exchanged) {
  exchanged.pending.wait();
  variable_list result;
  for (const ComingBlocks& coming : exchanged.tensors) {
    int64_t size = 0;
    for (const HeadBlock& part : coming.parts) size += part.size();
    const bool overlap = size > coming.whole.size();
    result.push_back(overlap ? sum_of(coming, exchanged.layout) : joined(coming, exchanged.layout));
  }
  return result;
}

/// What each rank has of the tensors before they go to heads.
BlocksOfTensors rows_of(const HeadExchange& exchange) {
  BlocksOfTensors blocks;
  for (const std::vector<HeadBlock>& of_ranks : exchange.blocks) {
    blocks.push_back(blocks_of_rows(exchange.rows, of_ranks.back().heads.end));
  }
  return blocks;
}

ExchangedBlocks start_to_rows(const variable_list& x, const HeadExchange& exchange) {
  return start_exchange(x, exchange.blocks, rows_of(exchange), exchange.layout, kHeadsForRows, *exchange.group);
}

variable_list all_rows(const variable_list& x, const HeadExchange& exchange) {
  return SentToHeads(x, exchange).finish();
}

variable_list all_heads(const variable_list& x, const HeadExchange& exchange) {
  ExchangedBlocks exchanged = start_to_rows(x, exchange);
  return finished(exchanged);
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
    : blocks_(start_exchange(x, rows_of(exchange), exchange.blocks, exchange.layout, kRowsForHeads, *exchange.group)) {}

std::vector<at::Tensor> SentToHeads::finish() { return finished(blocks_); }

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
  const HeadExchange exchange{BlocksOfTensors(scores.size(), blocks_of_heads(heads, rows.back().end)), rows, &group};
  ExchangedBlocks exchanged = start_to_rows(x, exchange);
  exchanged.pending.wait();
  std::vector<at::Tensor> result;
  for (const ComingBlocks& coming : exchanged.tensors) {
    const at::Tensor& first = coming.blocks.front();
    const at::Tensor largest = at::full({first.size(0), heads.back().end, first.size(2)},
                                        -std::numeric_limits<double>::infinity(), first.options());
    for (size_t rank = 0; rank < heads.size(); ++rank) {
      at::Tensor of_rank = largest.slice(1, heads[rank].begin, heads[rank].end);
      at::maximum_out(of_rank, of_rank, coming.blocks[rank].squeeze(3));
    }
    result.push_back(largest);
  }
  return result;
}

}  // namespace lighthouse

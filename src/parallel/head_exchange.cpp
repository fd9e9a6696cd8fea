#include "parallel/head_exchange.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>
#include <ATen/ops/maximum.h>
#include <ATen/ops/zeros.h>
#include <torch/csrc/autograd/custom_function.h>

#include <limits>
#include <utility>

#include "parallel/traffic.h"

namespace lighthouse {
namespace {

using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

const Span& own(const std::vector<Span>& spans, const Group& group) { return spans[static_cast<size_t>(group.rank())]; }

/// Blocks [B, heads_r, S_own, D], one for each rank r, exchanged for blocks [B, heads_own, S_r, D].
std::vector<at::Tensor> exchange_for_heads(const at::Tensor& x, const std::vector<Span>& heads,
                                           const std::vector<Span>& rows, Group& group) {
  const int64_t batch = x.size(0), head_dim = x.size(3);
  std::vector<at::Tensor> blocks;
  for (const Span& span : heads) {
    blocks.push_back(x.slice(1, span.begin, span.end).reshape({-1, head_dim}));
  }
  const std::vector<int64_t> in_counts = exchange_counts(own(rows, group), heads, batch);
  const std::vector<int64_t> out_counts = exchange_counts(own(heads, group), rows, batch);
  const at::Tensor out = at::empty({batch * own(heads, group).size() * rows.back().end, head_dim}, x.options());
  group.all_to_all(out, at::cat(blocks), out_counts, in_counts, kRowsForHeads).wait();
  std::vector<at::Tensor> parts = out.split_with_sizes(out_counts);
  for (at::Tensor& part : parts) part = part.view({batch, own(heads, group).size(), -1, head_dim});
  return parts;
}

/// The inverse: [B, heads_own, S, D] -> blocks [B, heads_r, S_own, D].
std::vector<at::Tensor> exchange_for_rows(const at::Tensor& x, const std::vector<Span>& heads,
                                          const std::vector<Span>& rows, Group& group) {
  const int64_t batch = x.size(0), head_dim = x.size(3);
  std::vector<at::Tensor> blocks;
  int64_t num_sent_heads = 0;
  for (const Span& span : rows) blocks.push_back(x.slice(2, span.begin, span.end).reshape({-1, head_dim}));
  for (const Span& span : heads) num_sent_heads += span.size();
  const std::vector<int64_t> in_counts = exchange_counts(own(heads, group), rows, batch);
  const std::vector<int64_t> out_counts = exchange_counts(own(rows, group), heads, batch);
  const at::Tensor out = at::empty({batch * num_sent_heads * own(rows, group).size(), head_dim}, x.options());
  group.all_to_all(out, at::cat(blocks), out_counts, in_counts, kHeadsForRows).wait();
  std::vector<at::Tensor> parts = out.split_with_sizes(out_counts);
  for (size_t rank = 0; rank < parts.size(); ++rank) {
    parts[rank] = parts[rank].view({batch, heads[rank].size(), -1, head_dim});
  }
  return parts;
}

at::Tensor all_rows(const at::Tensor& x, const std::vector<Span>& heads, const std::vector<Span>& rows, Group& group) {
  return at::cat(exchange_for_heads(x, heads, rows, group), 2);
}

bool overlap(const std::vector<Span>& spans) {
  for (size_t i = 1; i < spans.size(); ++i) {
    if (spans[i].begin < spans[i - 1].end) return true;
  }
  return false;
}

at::Tensor all_heads(const at::Tensor& x, const std::vector<Span>& heads, const std::vector<Span>& rows, Group& group) {
  const std::vector<at::Tensor> blocks = exchange_for_rows(x, heads, rows, group);
  if (!overlap(heads)) return at::cat(blocks, 1);
  const at::ScalarType sum_type = x.scalar_type() == at::kDouble ? at::kDouble : at::kFloat;
  const at::Tensor sum =
      at::zeros({x.size(0), heads.back().end, own(rows, group).size(), x.size(3)}, x.options().dtype(sum_type));
  for (size_t rank = 0; rank < blocks.size(); ++rank) {
    sum.slice(1, heads[rank].begin, heads[rank].end).add_(blocks[rank]);
  }
  return sum.to(x.scalar_type());
}

/// What backward needs; the group outlives the graph.
struct Exchange : torch::CustomClassHolder {
  Exchange(std::vector<Span> of_heads, std::vector<Span> of_rows, Group& of_group)
      : heads(std::move(of_heads)), rows(std::move(of_rows)), group(of_group) {}
  std::vector<Span> heads, rows;
  Group& group;
};
using ExchangePtr = c10::intrusive_ptr<Exchange>;

void save(AutogradContext* context, const ExchangePtr& exchange) {
  context->saved_data["exchange"] = c10::IValue::make_capsule(exchange);
}
const Exchange& load(AutogradContext* context) {
  return static_cast<const Exchange&>(*context->saved_data["exchange"].toCapsule());
}

struct ToHeads : torch::autograd::Function<ToHeads> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const ExchangePtr& exchange) {
    save(context, exchange);
    return all_rows(x, exchange->heads, exchange->rows, exchange->group);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const Exchange& exchange = load(context);
    return {all_heads(gradients[0], exchange.heads, exchange.rows, exchange.group), {}};
  }
};

struct ToRows : torch::autograd::Function<ToRows> {
  static at::Tensor forward(AutogradContext* context, const at::Tensor& x, const ExchangePtr& exchange) {
    save(context, exchange);
    return all_heads(x, exchange->heads, exchange->rows, exchange->group);
  }
  static variable_list backward(AutogradContext* context, const variable_list& gradients) {
    const Exchange& exchange = load(context);
    return {all_rows(gradients[0], exchange.heads, exchange.rows, exchange.group), {}};
  }
};

}  // namespace

at::Tensor to_heads(const at::Tensor& x, const std::vector<Span>& heads, const std::vector<Span>& rows, Group& group) {
  if (group.size() == 1) return x;
  return ToHeads::apply(x, c10::make_intrusive<Exchange>(heads, rows, group));
}

at::Tensor scores_to_rows(const at::Tensor& scores, const std::vector<Span>& heads, const std::vector<Span>& rows,
                          Group& group) {
  if (group.size() == 1) return scores;
  const at::NoGradGuard no_grad;
  const std::vector<at::Tensor> blocks = exchange_for_rows(scores.unsqueeze(3), heads, rows, group);
  const at::Tensor largest = at::full({scores.size(0), heads.back().end, own(rows, group).size()},
                                      -std::numeric_limits<double>::infinity(), scores.options());
  for (size_t rank = 0; rank < blocks.size(); ++rank) {
    at::Tensor of_rank = largest.slice(1, heads[rank].begin, heads[rank].end);
    at::maximum_out(of_rank, of_rank, blocks[rank].squeeze(3));
  }
  return largest;
}

at::Tensor to_rows(const at::Tensor& x, const std::vector<Span>& heads, const std::vector<Span>& rows, Group& group) {
  if (group.size() == 1) return x;
  return ToRows::apply(x, c10::make_intrusive<Exchange>(heads, rows, group));
}

}  // namespace lighthouse

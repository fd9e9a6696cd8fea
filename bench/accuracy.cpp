#include "bench/accuracy.h"

#include <ATen/TensorOperators.h>

#include <cmath>
#include <stdexcept>

#include "bench/composed_attention.h"
#include "bench/stages.h"
#include "lighthouse/check.h"

namespace lighthouse::bench {
namespace {

constexpr const char* kNames[] = {"o", "dq", "dk", "dv"};

/// The output and the three gradients, [B, N, heads, D].
using Results = std::vector<at::Tensor>;

Results results_of(const Inputs& inputs, const at::Tensor& out) {
  Results results = Contestant::gradients(inputs, out);
  results.insert(results.begin(), out.detach());
  return results;
}

/// The heads of one KV group.
struct Group {
  int64_t kv_head, num_query_heads;

  at::Tensor query_heads(const at::Tensor& x) const { return x.narrow(2, kv_head * num_query_heads, num_query_heads); }
  at::Tensor kv_heads(const at::Tensor& x) const { return x.narrow(2, kv_head, 1); }
  at::Tensor of(const Results& results, size_t i) const {
    return i < 2 ? query_heads(results[i]) : kv_heads(results[i]);
  }
};

Results composed_results(const Inputs& inputs, const Group& group, at::ScalarType dtype, const at::Tensor& selection,
                         const SelectionConfig& config) {
  const auto leaf = [&](const at::Tensor& x) { return x.detach().to(dtype).requires_grad_(); };
  const Inputs part{leaf(group.query_heads(inputs.q)),
                    leaf(group.kv_heads(inputs.k)),
                    leaf(group.kv_heads(inputs.v)),
                    group.query_heads(inputs.dout).to(dtype),
                    {}};
  return results_of(part, composed_attention(part.q, part.k, part.v, selection.narrow(1, group.kv_head, 1), config));
}

void compare(const Results& ours, const Group& group, const Results& exact, const Results& stock) {
  for (size_t i = 0; i < exact.size(); ++i) {
    const auto error = [&](const at::Tensor& x) { return (x.to(at::kDouble) - exact[i]).abs().max().item<double>(); };
    const bool is_double = stock[i].scalar_type() == at::kDouble;
    // Stock operators may be exact; then one rounding of the largest value is left to us.
    const double rounding = exact[i].abs().max().item<double>() * std::ldexp(1.0, is_double ? -52 : -23);
    const double limit = 2 * error(stock[i]) + rounding;
    const double found = error(group.of(ours, i));
    if (found <= limit) continue;  // not so where it is NaN
    throw std::runtime_error(detail::concat("bench attention: ", kNames[i], " of KV head ", group.kv_head, " is ",
                                            found, " off the fp64 composition; stock operators allow ", limit));
  }
}

/// What fp64 attention of one group keeps at its peak: scores, weights and their gradients, some of them twice.
double fp64_bytes(const Inputs& inputs, int64_t num_query_heads, int64_t gathered_len) {
  constexpr double kMatrices = 8;
  const auto rows = static_cast<double>(gathered_len);
  return kMatrices * sizeof(double) * rows * rows * static_cast<double>(inputs.q.size(0) * num_query_heads);
}

}  // namespace

bool check_accuracy(const Contestant& ours, const AttentionCase& attention_case) {
  constexpr double kMostBytes = 24e9;
  const Inputs& inputs = ours.sets().front();
  const int64_t num_kv_heads = inputs.k.size(2);
  const int64_t num_query_heads = inputs.q.size(2) / num_kv_heads;
  if (fp64_bytes(inputs, num_query_heads, attention_case.gathered_len()) > kMostBytes) return false;
  const at::Tensor selection = selection_as_run(inputs, attention_case);
  const Results results = results_of(inputs, ours.output(inputs));
  for (int64_t kv_head = 0; kv_head < num_kv_heads; ++kv_head) {
    const Group group{kv_head, num_query_heads};
    const auto composed = [&](at::ScalarType dtype) {
      return composed_results(inputs, group, dtype, selection, attention_case.selection);
    };
    compare(results, group, composed(at::kDouble), composed(inputs.q.scalar_type()));
  }
  return true;
}

}  // namespace lighthouse::bench

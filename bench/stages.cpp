#include "bench/stages.h"

#include <ATen/core/grad_mode.h>

#include <optional>
#include <tuple>

#include "ops/gathering.h"

namespace lighthouse::bench {
namespace {

/// Least traffic of the stages: every token and every row of an argument once.
struct Traffic {
  double q_tokens, kv_tokens, q_rows, kv_rows;  ///< bytes of q, of k or v; by token and by row

  Traffic(const Inputs& inputs, int64_t gathered_len) {
    const double share = static_cast<double>(gathered_len) / static_cast<double>(inputs.q.size(1));
    q_tokens = static_cast<double>(inputs.q.nbytes());
    kv_tokens = static_cast<double>(inputs.k.nbytes());
    q_rows = q_tokens * share;
    kv_rows = kv_tokens * share;
  }
  double all() const { return q_tokens + 2 * kv_tokens + q_rows + 2 * kv_rows; }
  double output() const { return q_tokens + q_rows; }
};

class OperatorStages {
 public:
  explicit OperatorStages(const StageBench& bench)
      : bench_(bench),
        in_(bench.inputs),
        plan_(calls::share_plan("bench", bench.attention_case.selection, in_.q.size(1), in_.q.size(0), std::nullopt)),
        traffic_(in_, bench.attention_case.gathered_len()) {}

  StageTimings run() {
    const at::NoGradGuard no_grad;
    token_stages();
    row_stages();
    backward_stages();
    return std::move(results_);
  }

 private:
  void stage(const char* name, double bytes, double flop, const Function& function) {
    results_.push_back({name, measure(function, bench_.limits, bench_.device.stopwatch()), bytes, flop});
  }

  void token_stages() {
    const ScoreConfig& score_config = bench_.attention_case.score;
    std::optional<at::Tensor> gate;
    if (in_.gate.defined()) gate = in_.gate;
    const auto score = [&] { return token_scores(in_.q, in_.k, in_.v, score_config, gate); };
    const auto select = [&] { return ops::select_entries(s_qk_, s_kq_, plan_); };
    const auto gather = [&] { return ops::gather_rows(in_.q, in_.k, in_.v, gathering_); };
    std::tie(s_qk_, s_kq_) = score();
    gathering_ = select();
    const Rows rows = gather();
    rows_ = {rows.q, rows.k, rows.v, {}, {}};
    stage("score", score_config.scorer == Scorer::kNorm ? traffic_.q_tokens + traffic_.kv_tokens : 0, 0, score);
    stage("select", 0, 0, select);
    stage("gather", traffic_.all(), 0, gather);
  }

  void row_stages() {
    const auto attend = [&] { return causal_attention(rows_.q, rows_.k, rows_.v); };
    rows_.dout = attend();  // any values will do
    stage("attention", 0, attention_flop(rows_.q), attend);
    stage("scatter", traffic_.output(), 0, [&] { ops::scatter_rows(rows_.dout, gathering_); });
  }

  void backward_stages() {
    stage("scatter backward", traffic_.output(), 0, [&] { ops::scatter_rows_backward(in_.dout, gathering_); });
    stage("attention backward", 0, 2.5 * attention_flop(rows_.q), attention_backward());
    stage("gather backward", traffic_.all(), 0, [&] {
      ops::gather_rows_backward({rows_.q, rows_.k, rows_.v}, gathering_);
    });
  }

  Function attention_backward() {
    const at::AutoGradMode with_grad(true);
    Inputs rows = rows_;
    for (at::Tensor* x : {&rows.q, &rows.k, &rows.v}) *x = x->detach().requires_grad_();
    const at::Tensor out = causal_attention(rows.q, rows.k, rows.v);
    return [rows, out] { Contestant::gradients(rows, out, /*keep_graph=*/true); };
  }

  const StageBench& bench_;
  const Inputs& in_;
  calls::SharedPlan plan_;
  Traffic traffic_;
  at::Tensor s_qk_, s_kq_;
  ops::Gathering gathering_;
  Inputs rows_;
  StageTimings results_;
};

}  // namespace

StageTimings time_stages(const StageBench& bench) {
  return bench.inputs.q.is_cuda() ? time_stages_cuda(bench) : OperatorStages(bench).run();
}

at::Tensor selection_as_run(const Inputs& inputs, const AttentionCase& attention_case) {
  const at::NoGradGuard no_grad;
  const bool pools = attention_case.selection.num_levels > 1;
  if (inputs.q.is_cuda() && pools && attention_case.score.scorer == Scorer::kNorm) {
    return selection_by_norm_cuda(inputs, attention_case);
  }
  const AttentionOptions options = attention_options(attention_case, inputs);
  const auto [s_qk, s_kq] = token_scores(inputs.q, inputs.k, inputs.v, options.score_config, options.gate);
  return select(s_qk, s_kq, attention_case.selection);
}

double attention_flop(const at::Tensor& q) {
  const auto rows = static_cast<double>(q.size(2));
  return static_cast<double>(q.size(0) * q.size(1) * q.size(3)) * 2 * rows * (rows + 1);
}

}  // namespace lighthouse::bench

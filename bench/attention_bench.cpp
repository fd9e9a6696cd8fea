#include "bench/attention_bench.h"

#include <ATen/CPUGeneratorImpl.h>
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/randn.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cmath>
#include <memory>
#include <ostream>
#include <stdexcept>
#include <tuple>

#include "bench/attention_report.h"
#include "bench/composed_attention.h"
#include "io/durable_file.h"
#include "lighthouse/check.h"
#include "ops/internal.h"

namespace lighthouse::bench {
namespace {

constexpr const char* kOperation = "bench attention";

at::ScalarType dtype_of(const std::string& name) {
  if (name == "float32") return at::kFloat;
  if (name == "float64") return at::kDouble;
  if (name == "bfloat16") return at::kBFloat16;
  if (name == "float16") return at::kHalf;
  throw InvalidArgument(std::string(kOperation) + ": dtype is '" + name +
                        "'; it must be float32, float64, bfloat16 or float16");
}

void check_options(const BenchOptions& options) {
  dtype_of(options.dtype);
  LIGHTHOUSE_CHECK(options.device == "cpu", kOperation, ": device is '", options.device, "'; this build has cpu only");
  LIGHTHOUSE_CHECK(options.score.scorer == "norm" || options.score.scorer == "dilated", kOperation, ": scorer is '",
                   options.score.scorer, "'; it must be norm or dilated (gla needs a trained gate)");
  LIGHTHOUSE_CHECK(!options.seq_lens.empty(), kOperation, ": no sequence length is given; give at least one");
  for (const int64_t seq_len : options.seq_lens) {
    LIGHTHOUSE_CHECK(seq_len >= 64 || (seq_len >= 1 && options.selection.topk >= 1), kOperation,
                     ": the sequence length is ", seq_len, "; it must be at least 64, or at least 1 with a given topk");
  }
  LIGHTHOUSE_CHECK(options.batch >= 1 && options.num_kv_heads >= 1 && options.head_dim >= 1 && options.num_heads >= 1,
                   kOperation, ": batch ", options.batch, ", num_heads ", options.num_heads, ", num_kv_heads ",
                   options.num_kv_heads, ", head_dim ", options.head_dim, "; all must be at least 1");
  LIGHTHOUSE_CHECK(options.num_heads % options.num_kv_heads == 0, kOperation, ": num_heads ", options.num_heads,
                   " is not a multiple of num_kv_heads ", options.num_kv_heads);
  LIGHTHOUSE_CHECK(std::isfinite(options.seconds) && options.seconds > 0, kOperation, ": seconds is ", options.seconds,
                   "; it must be positive");
}

/// q, k, v and the gradient of the output, of [B, N, H, D] or, for rows, [B, H, S, D].
struct Inputs {
  at::Tensor q, k, v, dout;
};

AttentionOptions attention_options(const BenchOptions& options, int64_t seq_len) {
  AttentionOptions attention;
  attention.selection_config = options.selection;
  if (attention.selection_config.topk == 0) attention.selection_config.topk = seq_len / 64;
  attention.score_config = options.score;
  return attention;
}

at::Tensor random(at::Generator& generator, at::IntArrayRef shape, const BenchOptions& options) {
  return at::randn(shape, generator, at::kFloat).to(dtype_of(options.dtype));
}

Inputs random_inputs(const BenchOptions& options, int64_t length, bool heads_first) {
  constexpr uint64_t kSeed = 1;
  at::Generator generator = at::make_generator<at::CPUGeneratorImpl>(kSeed);
  const auto shape = [&](int64_t heads) {
    return heads_first ? std::vector<int64_t>{options.batch, heads, length, options.head_dim}
                       : std::vector<int64_t>{options.batch, length, heads, options.head_dim};
  };
  Inputs inputs{
      random(generator, shape(options.num_heads), options), random(generator, shape(options.num_kv_heads), options),
      random(generator, shape(options.num_kv_heads), options), random(generator, shape(options.num_heads), options)};
  for (at::Tensor* x : {&inputs.q, &inputs.k, &inputs.v}) x->requires_grad_();
  return inputs;
}

using Attention = std::function<at::Tensor(const at::Tensor&, const at::Tensor&, const at::Tensor&)>;

/// A causal attention with inputs of its own.
struct Contestant {
  Inputs inputs;
  Attention attention;

  void forward() const {
    const at::NoGradGuard no_grad;
    attention(inputs.q, inputs.k, inputs.v);
  }
  void both() const { gradients(attention(inputs.q, inputs.k, inputs.v), false); }
  std::vector<at::Tensor> gradients(const at::Tensor& out, bool keep_graph) const {
    return torch::autograd::grad({out}, {inputs.q, inputs.k, inputs.v}, {inputs.dout}, keep_graph);
  }
};

Contestant stock_contestant(const BenchOptions& options, int64_t length) {
  return {random_inputs(options, length, /*heads_first=*/true),
          [](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) { return causal_attention(q, k, v); }};
}

Contestant lighthouse_contestant(const BenchOptions& options, int64_t seq_len) {
  return {
      random_inputs(options, seq_len, /*heads_first=*/false),
      [attention = attention_options(options, seq_len)](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
        return lighthouse_attention(q, k, v, attention);
      }};
}

// ---- Check ----------------------------------------------------------------------------------------------------------

/// The output and the three gradients.
std::vector<at::Tensor> results_of(const Contestant& contestant) {
  const Inputs& inputs = contestant.inputs;
  const at::Tensor out = contestant.attention(inputs.q, inputs.k, inputs.v);
  std::vector<at::Tensor> results = contestant.gradients(out, false);
  results.insert(results.begin(), out.detach());
  return results;
}

Contestant with_attention(const Contestant& other, at::ScalarType dtype, Attention attention) {
  const auto copy = [&](const at::Tensor& x) { return x.detach().to(dtype).requires_grad_(x.requires_grad()); };
  return {{copy(other.inputs.q), copy(other.inputs.k), copy(other.inputs.v), copy(other.inputs.dout)},
          std::move(attention)};
}

/// Ours may err at most twice as far from fp64 as stock operators do in the same dtype with the same selection.
void check_case(const BenchOptions& options, int64_t seq_len, const Contestant& ours) {
  const AttentionOptions attention = attention_options(options, seq_len);
  const auto [s_qk, s_kq] = token_scores(ours.inputs.q, ours.inputs.k, ours.inputs.v, options.score);
  const at::Tensor selection = select(s_qk, s_kq, attention.selection_config);
  const Attention composed = [&](const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
    return composed_attention(q, k, v, selection, attention.selection_config);
  };
  const auto exact = results_of(with_attention(ours, at::kDouble, composed));
  const auto stock = results_of(with_attention(ours, dtype_of(options.dtype), composed));
  const auto result = results_of(ours);
  const char* const names[] = {"o", "dq", "dk", "dv"};
  for (size_t i = 0; i < exact.size(); ++i) {
    const auto error = [&](const at::Tensor& x) { return (x.to(at::kDouble) - exact[i]).abs().max().item<double>(); };
    // Stock operators may be exact; then one rounding of the largest value is left to us.
    const double rounding =
        exact[i].abs().max().item<double>() * std::ldexp(1.0, options.dtype == "float64" ? -52 : -23);
    const double limit = 2 * error(stock[i]) + rounding;
    if (error(result[i]) <= limit) continue;
    throw std::runtime_error(detail::concat(kOperation, ": at length ", seq_len, ", ", names[i], " is ",
                                            error(result[i]), " off the fp64 composition; stock operators allow ",
                                            limit));
  }
}

// ---- Timing ---------------------------------------------------------------------------------------------------------

std::vector<Passes> measure_passes(const std::vector<const Contestant*>& contestants, const TimingLimits& limits) {
  std::vector<std::function<void()>> forward;
  std::vector<std::function<void()>> both;
  for (const Contestant* contestant : contestants) {
    forward.emplace_back([contestant] { contestant->forward(); });
    both.emplace_back([contestant] { contestant->both(); });
  }
  const std::vector<Timing> forward_timings = measure(forward, limits);
  const std::vector<Timing> both_timings = measure(both, limits);
  std::vector<Passes> passes;
  for (size_t i = 0; i < contestants.size(); ++i) passes.push_back({forward_timings[i], both_timings[i]});
  return passes;
}

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

/// Multiplications and additions of causal attention over the rows, forward.
double attention_flop(const at::Tensor& q_rows) {
  const auto rows = static_cast<double>(q_rows.size(2));
  return static_cast<double>(q_rows.size(0) * q_rows.size(1) * q_rows.size(3)) * 2 * rows * (rows + 1);
}

/// Every stage on what the one before it made.
class StageBench {
 public:
  StageBench(const Contestant& ours, const AttentionOptions& attention, const TimingLimits& limits)
      : in_(ours.inputs), attention_(attention), layout_(ops::layout_of(attention.selection_config)), limits_(limits) {}

  std::vector<StageResult> run() {
    const at::NoGradGuard no_grad;
    token_stages();
    row_stages();
    backward_stages();
    return std::move(results_);
  }

 private:
  void stage(const char* name, double bytes, double flop, const std::function<void()>& function) {
    results_.push_back({name, measure(function, limits_), bytes, flop});
  }

  void token_stages() {
    const auto score = [&] { return token_scores(in_.q, in_.k, in_.v, attention_.score_config); };
    const auto select = [&] {
      return ops::select_entries(s_qk_, s_kq_, layout_, attention_.selection_config.cover_prefix, std::nullopt);
    };
    const auto gather = [&] {
      return ops::gather_rows(in_.q, in_.k, in_.v, selection_, slots_, layout_, std::nullopt);
    };
    std::tie(s_qk_, s_kq_) = score();
    std::tie(selection_, slots_) = select();
    std::tie(rows_.q, rows_.k, rows_.v) = gather();
    const Traffic traffic(in_, rows_.q.size(2));
    const bool norms = attention_.score_config.scorer == "norm";
    stage("score", norms ? traffic.q_tokens + traffic.kv_tokens : 0, 0, score);
    stage("select", 0, 0, select);
    stage("gather", traffic.all(), 0, gather);
  }

  void row_stages() {
    const auto attend = [&] { return causal_attention(rows_.q, rows_.k, rows_.v); };
    rows_.dout = attend();  // any values will do
    stage("attention", 0, attention_flop(rows_.q), attend);
    stage("scatter", Traffic(in_, rows_.q.size(2)).output(), 0,
          [&] { ops::scatter_rows(rows_.dout, selection_, slots_, in_.q.size(1), layout_, std::nullopt); });
  }

  void backward_stages() {
    const Traffic traffic(in_, rows_.q.size(2));
    stage("scatter backward", traffic.output(), 0,
          [&] { ops::scatter_rows_backward(in_.dout, selection_, slots_, layout_, std::nullopt); });
    stage("attention backward", 0, 2.5 * attention_flop(rows_.q), attention_backward());
    stage("gather backward", traffic.all(), 0, [&] {
      ops::gather_rows_backward(rows_.q, rows_.k, rows_.v, selection_, slots_, in_.q.size(1), layout_, std::nullopt);
    });
  }

  std::function<void()> attention_backward() {
    const at::AutoGradMode with_grad(true);
    Contestant middle{rows_, nullptr};
    for (at::Tensor* x : {&middle.inputs.q, &middle.inputs.k, &middle.inputs.v}) *x = x->detach().requires_grad_();
    const at::Tensor out = causal_attention(middle.inputs.q, middle.inputs.k, middle.inputs.v);
    return [middle, out] { middle.gradients(out, /*keep_graph=*/true); };
  }

  const Inputs& in_;
  const AttentionOptions& attention_;
  std::array<int64_t, 4> layout_;
  TimingLimits limits_;
  at::Tensor s_qk_, s_kq_, selection_, slots_;
  Inputs rows_;
  std::vector<StageResult> results_;
};

CaseResult run_case(const BenchOptions& options, int64_t seq_len) {
  TimingLimits limits;
  limits.seconds = options.seconds;
  const AttentionOptions attention = attention_options(options, seq_len);
  const int64_t gathered_len = gathered_length(seq_len, attention.selection_config);
  const Contestant ours = lighthouse_contestant(options, seq_len);
  if (options.check) check_case(options, seq_len, ours);

  const Contestant at_gathered_len = stock_contestant(options, gathered_len);
  const std::vector<Passes> passes = measure_passes({&at_gathered_len, &ours}, limits);
  CaseResult result{seq_len, gathered_len, attention.selection_config.topk, {}, passes[0], passes[1], {}};
  if (seq_len <= options.max_dense_len) {
    const Contestant dense = stock_contestant(options, seq_len);
    result.dense = measure_passes({&dense}, limits).front();
  }
  limits.seconds = options.seconds / 5;
  result.stages = StageBench(ours, attention, limits).run();
  return result;
}

}  // namespace

void run_attention_bench(const BenchOptions& options, std::ostream& out) {
  check_options(options);
  for (const int64_t seq_len : options.seq_lens) {  // before anything takes time
    gathered_length(seq_len, attention_options(options, seq_len).selection_config);
  }
  std::unique_ptr<DurableFile> file;
  if (!options.output.empty()) file = std::make_unique<DurableFile>(options.output);
  const Machine machine = measure_machine();
  print_header(options, machine, out);
  std::vector<CaseResult> results;
  for (const int64_t seq_len : options.seq_lens) {
    results.push_back(run_case(options, seq_len));
    print_case(results.back(), machine, out);
  }
  print_growth(results, out);
  if (file == nullptr) return;
  const std::string lines = json_lines(options, machine, results);
  file->write(std::as_bytes(std::span(lines)));
  file->commit();
}

}  // namespace lighthouse::bench

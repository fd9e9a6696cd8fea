#include "plan/time.h"

#include <algorithm>
#include <cmath>

#include "config/schema.h"
#include "plan/flops.h"
#include "plan/memory.h"
#include "plan/overlap.h"
#include "plan/shape.h"
#include "plan/traffic.h"

namespace lighthouse {
namespace {

// Estimated or measured; the place to calibrate. A pass is one read or write of a tensor.
constexpr double kStageShare = 0.85;        // of the copy rate that score, gather, scatter reach (docs/benchmarks.md)
constexpr double kGlaShare = 0.35;          // and the gla scorer, for two passes over q, k, v
constexpr double kSelectSeconds = 24e-6;    // of select: latency, not bytes
constexpr double kRowShare = 0.85;          // and row operators
constexpr double kRowForwardPasses = 8;     // of C: two norms with residual sums
constexpr double kRowForwardFfnPasses = 3;  // of F: SwiGLU
constexpr double kRowBackwardPasses = 8;
constexpr double kRowBackwardFfnPasses = 6;
constexpr double kRopeForwardPasses = 4;  // of C
constexpr double kRopeBackwardPasses = 6;
constexpr double kTurnPasses = 1.5;           // what RoPE adds to gather, and to its adjoint, where it is part of them
constexpr double kQkNormPasses = 5;           // of q and k, forward and backward
constexpr double kLossPasses = 6;             // over logits
constexpr double kEmbeddingPasses = 6;        // of C: lookup and its backward, final norm
constexpr double kAdamBytes = 28;             // a parameter: weight, moments read and written, gradient read
constexpr double kMomentBytes = 8;            // a parameter: moments, one way between host and device
constexpr double kWeightBytes = 4;            // the same of its value, of a matrix
constexpr double kBothWays = 0.8;             // of the rate of the host link, where copies go both ways at once
constexpr double kNormBytes = 4;              // a parameter: gradient norm
constexpr double kCastBytes = 6;              // a parameter in bf16: read, copy written
constexpr double kAccumulateBytes = 8;        // a parameter and further micro-batch: gradient read and written
constexpr double kDeterministicCudnn = 1.28;  // of the time of attention
constexpr double kDeterministicFlash = 2.9;
constexpr double kSmallHead = 0.7;  // attention rate with heads below 128 channels over that with 128
constexpr double kMeasuredHeads = 8;
constexpr double kBlockRows = 128;     // of attention that one multiprocessor works on
constexpr double kOrderPasses = 2;     // over what is exchanged, which is copied once: before it is sent or after
constexpr double kLayerLaunches = 60;  // kernels of a layer, forward and backward
constexpr double kLaunchSeconds = 5e-6;
constexpr double kForwardShare = 1.0 / 3;  // of the launches of a layer, and of the head

/// Costs of one layer, one micro-batch.
struct LayerTime {
  double products = 0, attention = 0, stages = 0, rows = 0;
  double sum() const { return products + attention + stages + rows; }
};
struct LayerTimes {
  LayerTime forward, both;
  double selection = 0;  ///< of forward: scores and selection, if passes of their own make them
};

class Costs {
 public:
  Costs(const RunConfig& config, const DeviceProfile& profile)
      : config_(config),
        s_(config),
        profile_(in_precision(profile, config.training.precision)),
        vector_(bytes(s_.tokens * s_.dim)) {}

  LayerTimes layer(const LayerShape& shape) const {
    LayerTimes times;
    times.forward.products = product(layer_matrices(s_));
    times.both.products = 3 * times.forward.products;
    add_attention(shape, times);
    if (shape.lighthouse) add_stages(shape, times);
    add_rows(shape, times);
    return times;
  }

  /// Forward product of all tokens with a matrix of so many elements.
  double product(int64_t elements) const {
    return 2 * static_cast<double>(s_.tokens) * static_cast<double>(elements) / profile_.product_flops;
  }
  double bytes(int64_t elements) const { return static_cast<double>(elements * s_.element); }
  double copy(double bytes, double share) const { return bytes / (share * profile_.copy_bytes_per_s); }

  double head() const {
    const double logits = kLossPasses * bytes(s_.tokens * s_.vocab);
    return 3 * product(s_.vocab * s_.dim) + copy(logits + kEmbeddingPasses * vector_, kRowShare);
  }
  double optimizer() const {
    const auto parameters = static_cast<double>(num_parameters(config_.model));
    const double cast = config_.training.precision == Precision::kBf16 ? kCastBytes : 0;
    const auto updated = static_cast<double>(most_owned_parameters(config_));
    const auto more = static_cast<double>(micro_batches() - 1);
    const double update = copy(updated * kAdamBytes, kRowShare);
    const double moved =
        (config_.training.offload_optimizer ? kMomentBytes : 0) + (config_.training.offload_weights ? kWeightBytes : 0);
    return std::max(update, updated * moved / (kBothWays * profile_.host_bytes_per_s)) +
           copy(updated * kNormBytes + parameters * (cast + more * kAccumulateBytes), kRowShare);
  }
  int64_t micro_batches() const { return mesh_of(config_.parallel).most_of(config_.training.gradient_accumulation); }
  /// What ranks that share sequences exchange in a step, with what stays, is put in the order of ranks or of rows.
  double order_rows(bool lighthouse) const {
    double bytes = 0;
    for (const auto& [name, traffic] : step_traffic(config_, lighthouse, 0)) {
      if (name == kRowsForHeads || name == kHeadsForRows) bytes += static_cast<double>(traffic.bytes);
    }
    const auto sharers = static_cast<double>(num_sharers());
    return sharers == 1 ? 0 : copy(kOrderPasses * bytes * sharers / (sharers - 1), kRowShare);
  }
  double recompute(const LayerTimes& layer, int64_t index) const {
    const auto times = static_cast<double>(times_recomputed(config_, index));
    if (times > 0) return times * (layer.forward.sum() - layer.selection) - unread();
    return config_.training.recompute == Recompute::kSelective ? product(2 * s_.ffn * s_.dim) : 0;
  }
  /// What a layer that is run again for its backward alone need not compute: SwiGLU and the product behind it.
  double unread() const {
    return product(s_.ffn * s_.dim) + copy(kRowForwardFfnPasses * bytes(s_.tokens * s_.ffn), kRowShare);
  }
  /// Of the input of one layer, to the host or back.
  double transfer() const { return vector_ / profile_.host_bytes_per_s; }

 private:
  void add_attention(const LayerShape& shape, LayerTimes& times) const {
    const ModelConfig& model = config_.model;
    const double heads = static_cast<double>(s_.batch * model.num_heads) / static_cast<double>(num_sharers());
    const auto pairs = static_cast<double>(shape.pairs);
    const double flops = attention_flops(pairs, heads, static_cast<double>(model.head_dim));
    const double length = 2 * pairs / static_cast<double>(shape.rows) - 1;  // of causal sequences with so many pairs
    const AttentionRate rate = attention_rate(profile_, length);
    const double slower = deterministic_factor(shape) / head_factor();
    const double few = few_heads_factor(length, heads);
    times.forward.attention = flops / (rate.forward * head_factor()) * few;
    times.both.attention = (1 + kAttentionBackward) * flops / rate.both * slower * few;
  }
  int64_t num_sharers() const { return config_.parallel.context; }
  /// How much slower attention is than that of the heads which its rates were measured with. A block of rows takes as
  /// long as it has rows before it, so the last one takes 2 / (blocks + 1) of a head's time: with too few heads it is
  /// waited for while other multiprocessors are idle.
  double few_heads_factor(double length, double heads) const {
    const double per_head = (std::ceil(length / kBlockRows) + 1) / 2;
    const auto busy = [&](double count) { return std::min(1.0, count * per_head / double{kMultiprocessors}); };
    return num_sharers() == 1 ? 1 : std::max(1.0, busy(kMeasuredHeads) / busy(heads));
  }
  double head_factor() const { return config_.model.head_dim < 128 ? kSmallHead : 1; }
  double deterministic_factor(const LayerShape& shape) const {
    if (!config_.training.deterministic) return 1;
    const bool cudnn = config_.training.precision == Precision::kBf16 && shape.own_queries() == shape.rows;
    return cudnn ? kDeterministicCudnn : kDeterministicFlash;
  }

  /// The bytes that the stages cannot do without, as docs/benchmarks.md counts them.
  void add_stages(const LayerShape& shape, LayerTimes& times) const {
    const double qkv = bytes(s_.tokens * s_.qkv);
    const double rows = bytes(s_.batch * shape.own_rows() * s_.qkv);
    const double o = bytes(s_.tokens * s_.q_channels);
    const double o_rows = bytes(s_.batch * shape.own_rows() * s_.q_channels);
    const double coarse = bytes(s_.batch * shape.num_coarse * s_.qkv) / static_cast<double>(num_sharers());
    const bool norm = selects_in_gather();
    const double read =
        norm ? bytes(s_.batch * shape.tokens_read * s_.qkv) / static_cast<double>(num_sharers()) + coarse : qkv;
    const double forward = (norm ? qkv + coarse : 0) + read + rows + o_rows + o;
    const double backward = o + o_rows + rows + qkv;
    times.forward.stages = copy(forward, kStageShare) + kSelectSeconds + scorer_seconds();
    times.selection = norm ? 0 : kSelectSeconds + scorer_seconds();
    times.both.stages = times.forward.stages + copy(backward, kStageShare);
  }
  /// One pass scores, pools and turns.
  bool selects_in_gather() const { return lighthouse::selects_in_gather(config_.model, config_.attention.scorer); }
  double scorer_seconds() const {
    const Scorer scorer = config_.attention.scorer;
    const double qkv = bytes(s_.tokens * s_.qkv);
    if (scorer == Scorer::kGla) return copy(2 * qkv, kGlaShare);
    const double q_and_k = bytes(s_.tokens * (s_.q_channels + s_.kv_channels));
    if (scorer == Scorer::kNorm) return selects_in_gather() ? 0 : copy(q_and_k, kStageShare);
    if (scorer == Scorer::kRandom) return copy(q_and_k, kStageShare);
    const auto length = static_cast<double>(config_.training.seq_len) / static_cast<double>(config_.attention.dilation);
    const double attention = static_cast<double>(s_.batch) * scorer_flops(config_) /
                             static_cast<double>(head_spans_of(config_).num_head_groups) /
                             (attention_rate(profile_, length).forward * head_factor());
    return attention + copy(q_and_k, kStageShare);
  }

  void add_rows(const LayerShape& shape, LayerTimes& times) const {
    const double ffn = static_cast<double>(s_.ffn) / static_cast<double>(s_.dim);
    const bool turned = shape.lighthouse && selects_in_gather();
    const double forward = kRowForwardPasses + (turned ? kTurnPasses : kRopeForwardPasses) + kRowForwardFfnPasses * ffn;
    const double backward =
        kRowBackwardPasses + (turned ? kTurnPasses : kRopeBackwardPasses) + kRowBackwardFfnPasses * ffn;
    times.forward.rows = copy(forward * vector_, kRowShare);
    times.both.rows = copy((forward + backward) * vector_, kRowShare);
    if (config_.model.qk_norm()) {
      times.both.rows += copy(kQkNormPasses * bytes(s_.tokens * (s_.q_channels + s_.kv_channels)), kRowShare);
    }
  }

  const RunConfig& config_;
  Sizes s_;
  DeviceProfile profile_;  ///< in the precision of the configuration
  double vector_;          ///< bytes of C channels of all tokens
};

/// That the host needs for one micro-batch, forward and backward.
double launch_seconds(const std::vector<LayerShape>& layers) {
  return static_cast<double>(layers.size()) * kLayerLaunches * kLaunchSeconds;
}

/// Of so many values together, one after another; of those that are left at the end.
std::vector<double> sums_of(const std::vector<double>& values, size_t together) {
  std::vector<double> sums;
  for (size_t i = 0; i < values.size(); ++i) {
    if (i % together == 0) sums.push_back(0);
    sums.back() += values[i];
  }
  return sums;
}

/// Seconds of one micro-batch that backward waits for the inputs of layers, or of layers that have one together. Copies
/// come one after another beside the layers: out from the begin of a layer's forward, back from the begin of the
/// backward of the layer above.
double offload_seconds(const std::vector<double>& forward, double loss, const std::vector<double>& backward,
                       size_t num_offloaded, double transfer) {
  const size_t num_layers = forward.size();
  double now = 0, copied = 0, waited = 0;
  const auto copy = [&] { copied = std::max(copied, now) + transfer; };
  for (size_t layer = 0; layer < num_layers; ++layer) {
    if (layer < num_offloaded) copy();
    now += forward[layer];
  }
  now += loss;
  for (size_t layer = num_layers; layer-- > 0;) {
    if (layer < num_offloaded) {
      if (layer + 1 == num_layers) copy();  // there is none above
      waited += std::max(0.0, copied - now);
      now = std::max(now, copied);
    }
    if (layer > 0 && layer <= num_offloaded) copy();
    now += backward[layer];
  }
  return waited;
}

}  // namespace

StepTime step_time(const RunConfig& config, bool lighthouse, const DeviceProfile& profile, int64_t node_size) {
  const Costs costs(config, profile);
  const auto micro_batches = static_cast<double>(costs.micro_batches());
  StepTime time;
  const std::vector<LayerShape> layers = layer_shapes(config, lighthouse);
  std::vector<double> forward, backward;  // of each layer
  for (size_t index = 0; index < layers.size(); ++index) {
    const LayerTimes layer = costs.layer(layers[index]);
    const double recompute = costs.recompute(layer, static_cast<int64_t>(index));
    time.products += micro_batches * layer.both.products;
    time.attention += micro_batches * layer.both.attention;
    time.lighthouse += micro_batches * layer.both.stages;
    time.rows += micro_batches * layer.both.rows;
    time.recompute += micro_batches * recompute;
    forward.push_back(layer.forward.sum());
    backward.push_back(layer.both.sum() - layer.forward.sum() + recompute);
  }
  time.head = micro_batches * costs.head();
  const auto together = static_cast<size_t>(config.training.recompute_layers);
  time.offload = micro_batches * offload_seconds(sums_of(forward, together), costs.head(), sums_of(backward, together),
                                                 static_cast<size_t>(offloaded_inputs(config)), costs.transfer());
  time.optimizer = costs.optimizer();
  time.launches = std::max(0.0, micro_batches * launch_seconds(layers) - time.total());
  const ExchangeTime exchange = exchange_time(config, lighthouse, hopper_links(), node_size);
  time.exchange = exchange.rows + costs.order_rows(lighthouse);
  time.gradients = exposed_seconds(config, exchange.sums, backward) + exchange.updated;
  return time;
}

double run_seconds(const RunConfig& config, const DeviceProfile& profile, int64_t node_size) {
  double seconds = 0;
  for (const bool lighthouse : stages_of(config.training)) {
    const int64_t stage_1 = config.training.lighthouse_steps;
    const int64_t steps = lighthouse ? stage_1 : config.training.steps - stage_1;
    seconds += static_cast<double>(steps) * step_time(config, lighthouse, profile, node_size).total();
  }
  return seconds;
}

double validation_seconds(const RunConfig& config, const DeviceProfile& profile) {
  RunConfig one = config;
  one.training.batch_size = 1;
  const Costs costs(one, profile);
  const auto forward = [&](bool lighthouse) {
    const std::vector<LayerShape> layers = layer_shapes(one, lighthouse);
    double seconds = kForwardShare * costs.head();
    for (const LayerShape& layer : layers) seconds += costs.layer(layer).forward.sum();
    return std::max(seconds, kForwardShare * launch_seconds(layers));
  };
  const int64_t sequences = mesh_of(config.parallel).most_of(config.validation.sequences);
  return static_cast<double>(sequences) * (forward(false) + (has_lighthouse_stage(config) ? forward(true) : 0));
}

}  // namespace lighthouse

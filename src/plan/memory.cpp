#include "plan/memory.h"

#include <algorithm>
#include <numeric>

#include "config/schema.h"
#include "ops/cudnn_limits.h"
#include "parallel/mesh_shape.h"
#include "parallel/pieces.h"
#include "parallel/tree_schedule.h"
#include "plan/device_profile.h"
#include "plan/feed_forward_tile.h"
#include "plan/pinned_blocks.h"
#include "plan/transfer_parts.h"

namespace lighthouse {
namespace {

constexpr int64_t kMiB = int64_t{1} << 20;
constexpr int64_t kFp32 = 4;
constexpr int64_t kInt32 = 4;

// What was not derived but estimated or measured stands here.
constexpr int64_t kCudaContext = 600 * kMiB;        // context, loaded kernels, cuBLAS and cuDNN
constexpr int64_t kCpuProcess = 400 * kMiB;         // the program and libtorch
constexpr double kFragmentation = 0.03;             // of what comes and goes: blocks that the allocator cannot use
constexpr int64_t kTokenBytes = 2 * 8;              // a token and its target, int64
constexpr int64_t kLogitsChunk = int64_t{1} << 30;  // the loss makes logits in chunks of at most this many bytes
constexpr int64_t kBlockCopies = 18;                // bytes a channel: o, its gradient, parts and sums of dq, dk, dv
constexpr int64_t kExchangeCopies = 3;              // of rows that ranks exchange: sent, received, in order

/// Workspace of one attention backward over S rows.
int64_t attention_workspace(const RunConfig& config, const LayerShape& layer, const Sizes& sizes) {
  const int64_t dq = sizes.batch * layer.own_queries() * sizes.own_q_channels * kFp32;  // summed in fp32
  if (!config.training.deterministic) return dq;
  const int64_t groups = sizes.batch * sizes.own_kv_heads;
  if (config.training.precision == Precision::kBf16 && layer.own_queries() == layer.rows) {
    const ops::CudnnLimits limits;
    const int64_t heads = config.model.num_heads / config.model.num_kv_heads;  // that share one KV head
    const int64_t rows = limits.block_rows(layer.rows, heads);
    const auto group = static_cast<int64_t>(ops::CudnnLimits::score_gradient_bytes(rows, heads));
    const int64_t copies = rows < layer.rows ? sizes.batch * rows * sizes.own_q_channels * kBlockCopies : 0;
    return dq + copies + group * std::clamp<int64_t>(limits.slice_bytes / std::max<int64_t>(group, 1), 1, groups);
  }
  const int64_t heads = sizes.batch * sizes.own_heads;
  return dq * ((kMultiprocessors + heads - 1) / heads);  // FlashAttention-2 keeps dq once for each of its splits
}

/// Temporaries of the backward of the attention and its projections, the last of which makes the gradient of the normed
/// input.
int64_t attention_temporaries(const LayerShape& layer, const Sizes& s) {
  const int64_t own_rows = s.batch * layer.own_rows();
  if (layer.rows_of_ranks.size() > 1) {
    // Gradients of the rank's heads, of all heads of its rows, and what of them is on its way at the same time.
    const int64_t of_heads = s.batch * layer.most_attended(2 * s.own_q_channels, 2 * s.own_kv_channels);
    const int64_t further = (s.row_groups - 1) * own_rows * 2 * s.kv_channels;  // gradients of keys by the other groups
    return (of_heads + further + (kExchangeCopies * own_rows + s.tokens) * s.qkv + s.tokens * (s.q_channels + s.dim)) *
           s.element;
  }
  if (!layer.lighthouse) return s.tokens * (2 * s.qkv + s.dim) * s.element;  // dq, dk, dv, and packed again
  const int64_t by_token = std::max(2 * s.q_channels, s.qkv + s.dim);  // o scattered again and its gradient, first
  const int64_t by_row = s.qkv + s.q_channels;                         // gradients of the rows and of their o
  return (s.tokens * by_token + own_rows * by_row) * s.element;
}

/// What a layer's backward has beside what is kept and the gradient of the residual stream: the larger of its halves.
/// The feed-forward comes first, and lets go of what it has kept. Gate and up are there for a tile of tokens at a time,
/// unless they were kept.
int64_t backward_temporaries(const RunConfig& config, const LayerShape& layer, const Sizes& s) {
  const int64_t tile = std::min(s.tokens, feed_forward_tile(s.ffn, s.element));
  const int64_t vector = s.tokens * s.dim * s.element;
  const int64_t gate_up = tile * 2 * s.ffn * s.element;
  const int64_t feed_forward = vector + tile * s.ffn * s.element;  // gradients of the normed input, of the activation
  const int64_t attention = attention_temporaries(layer, s);
  const KeptBytes kept = layer_kept(config, layer);
  const int64_t of_feed_forward = vector;  // its input
  switch (config.training.recompute) {
    case Recompute::kFull: {
      const int64_t again = kept.all() - kept.gate_up - vector;  // the layer's input is among the inputs
      const int64_t normed = vector, before = vector;            // the gradient that came, to the end of the layer
      return std::max(feed_forward + gate_up + normed + again, attention + before + again - of_feed_forward);
    }
    case Recompute::kSelective:
      return std::max(feed_forward + gate_up, attention - of_feed_forward);
    case Recompute::kNone:
      break;
  }
  return std::max(feed_forward, attention - of_feed_forward - kept.gate_up);
}

/// Selection and slots of a Lighthouse layer.
int64_t selection_bytes(const RunConfig& config, const LayerShape& layer, const Sizes& s) {
  return layer.lighthouse ? s.batch * config.model.num_kv_heads * (layer.own_slots() + layer.own_rows()) * kInt32 : 0;
}

/// What a layer keeps from its forward to its backward, on the device. `input`: with full recomputation, that too.
int64_t kept_by(const RunConfig& config, const LayerShape& layer, const Sizes& s, bool input) {
  const KeptBytes kept = layer_kept(config, layer);
  if (config.training.recompute == Recompute::kFull) {
    const bool again = selects_in_gather(config.model, config.attention.scorer);
    return (input ? s.tokens * s.dim * s.element : 0) + (again ? 0 : selection_bytes(config, layer, s));
  }
  return config.training.recompute == Recompute::kSelective ? kept.all() - kept.gate_up : kept.all();
}

/// What is kept whichever layers are still to come.
int64_t kept_around(const RunConfig& config, const Sizes& s) {
  const int64_t vector = s.tokens * s.dim * s.element;
  const int64_t rotation = s.tokens / s.batch * config.model.head_dim * kFp32;  // cosines and sines
  const int64_t of_loss = vector;  // the gradient of what the last norm is given
  return s.tokens * kTokenBytes + rotation + of_loss;
}

/// Inputs beside those that are kept there which are on the device in the backward of a layer. Of offloaded ones: its
/// own, and the next, on its way back; in the loss, after the last layer, the last, on its way out. Of layers that have
/// one kept input together: those that it was followed to.
int64_t inputs_on_device(const RunConfig& config, int64_t layer) {
  const int64_t together = config.training.recompute_layers;
  const bool is_loss = layer == config.model.num_layers;
  const int64_t input = is_loss ? (layer + together - 1) / together : layer / together;
  const int64_t num_offloaded = offloaded_inputs(config);
  return (input < num_offloaded ? 1 : 0) + (input > 0 && input <= num_offloaded ? 1 : 0) +
         (is_loss ? 0 : layer % together);
}

/// What the norms of q and k keep of a token. They are given views of one product. Where they read it as it is, all of
/// it stays; where they make copies in fp32, it stays if v does, which is a view too.
int64_t qk_norm_bytes(const RunConfig& config, const LayerShape& layer, const Sizes& s) {
  const int64_t channels = s.q_channels + s.kv_channels;
  const int64_t inverse_rms = (config.model.num_heads + config.model.num_kv_heads) * kFp32;
  const bool copied = s.element < kFp32;
  const int64_t copies = copied ? channels * kFp32 : 0;
  if (!layer.lighthouse) return inverse_rms + copies + channels * s.element;  // v is attention's own
  return inverse_rms + (copied ? copies : s.qkv * s.element);
}

/// All matrices, which products read in the compute dtype.
int64_t num_matrix_elements(const ModelConfig& model, const Sizes& s) {
  const int64_t vocabularies = model.tie_embeddings ? 1 : 2;
  return model.num_layers * layer_matrices(s) + vocabularies * s.vocab * s.dim;
}

/// Weights, moments and copies: the same through the whole step.
StepMemory persistent(const RunConfig& config, const Sizes& s) {
  const ModelConfig& model = config.model;
  const bool gated = config.attention.scorer == Scorer::kGla;
  const int64_t gates = gated ? model.num_layers * model.num_heads * s.dim : 0;
  const int64_t all_weights = (num_parameters(model) + gates) * kFp32;
  const int64_t moments = 2 * most_owned_parameters(config) * kFp32;
  StepMemory memory;
  memory.weights = all_weights;
  if (config.training.offload_weights) {
    memory.host = num_matrix_elements(model, s) * kFp32;
    memory.weights -= memory.host;
  }
  (config.training.offload_optimizer ? memory.host : memory.moments) += moments;
  if (config.training.precision == Precision::kBf16) memory.copies = num_matrix_elements(model, s) * s.element;
  const std::vector<int64_t> blocks = pinned_blocks(s.tokens * s.dim * s.element);
  memory.host += offloaded_inputs(config) * std::accumulate(blocks.begin(), blocks.end(), int64_t{0});
  if (config.checkpoint.asynchronous) memory.host += all_weights + moments;
  return memory;
}

void add_overhead(StepMemory& memory, bool on_cuda) {
  const int64_t moving = memory.gradients + memory.kept + memory.temporaries + memory.workspace;
  memory.overhead = on_cuda ? kCudaContext + static_cast<int64_t>(kFragmentation * static_cast<double>(moving))
                            : kCpuProcess + memory.host;  // on the CPU both are one memory
}

/// What is on its way while gradients are summed over ranks, in the last backward pass and behind it: each bucket sent,
/// and as much received.
int64_t gradient_buffers(const RunConfig& config) {
  if (mesh_of(config.parallel).size() == 1) return 0;
  return 2 * kBucketsUnderWay * std::min(kBucketElements, num_parameters(config.model)) * kFp32;
}

/// What comes from the host, is updated and goes back: on a GPU it passes through it in parts.
int64_t transfer_parts(const RunConfig& config, bool on_cuda) {
  if (!config.training.offload_optimizer || !on_cuda) return 0;
  const int64_t part = std::min(kTransferPartElements, most_owned_parameters(config));
  const int64_t kinds = config.training.offload_weights ? 3 : 2;
  return kTransferPartsOnDevice * kinds * part * kFp32;
}

/// Bytes of gradients in the micro-batches of one kind.
struct PassGradients {
  int64_t before;      ///< when the backward pass begins
  int64_t num_layers;  ///< so many layers' come to them, and stay
  int64_t buffers;     ///< of gradient_buffers
  int64_t sums;        ///< when they are added behind the pass; 0: they are not
};

/// All kinds of micro-batches that a step of one rank has.
std::vector<PassGradients> passes_of(const RunConfig& config, const Sizes& s) {
  const int64_t all = num_parameters(config.model) * kFp32;
  const int64_t head = s.vocab * s.dim * kFp32;
  const int64_t count = mesh_of(config.parallel).most_of(config.training.gradient_accumulation);
  const int64_t num_layers = config.model.num_layers, buffers = gradient_buffers(config);
  if (count == 1) return {{head, num_layers, buffers, 0}};
  if (config.training.accumulation == Accumulation::kSequence) return {{all, 0, buffers, 0}};
  std::vector<int64_t> held = held_sums(tree_schedule(count));
  const int64_t at_last = held.back();  // to which the last micro-batch adds each gradient as it comes
  held.pop_back();
  const int64_t most = *std::max_element(held.begin(), held.end());
  return {{most * all + head, num_layers, 0, (most + 1) * all}, {at_last * all + head, 1, buffers, 0}};
}

/// A step's memory as its moments go by; remembers the one that took most.
class StepPeak {
 public:
  StepPeak(StepMemory persistent, bool on_cuda) : most_(std::move(persistent)), on_cuda_(on_cuda), base_(most_) {}

  void see(const std::string& name, int64_t gradients, int64_t kept, int64_t temporaries, int64_t workspace) {
    StepMemory now = base_;
    now.gradients = gradients;
    now.kept = kept;
    now.temporaries = temporaries;
    now.workspace = on_cuda_ ? workspace : 0;
    now.peak = name;
    add_overhead(now, on_cuda_);
    if (now.total() > most_.total()) most_ = now;
  }
  const StepMemory& most() const { return most_; }

 private:
  StepMemory most_;
  bool on_cuda_;
  StepMemory base_;
};

}  // namespace

KeptBytes layer_kept(const RunConfig& config, const LayerShape& layer) {
  const Sizes s(config);
  const int64_t own_rows = s.batch * layer.own_rows();
  KeptBytes kept{};
  kept.residual = s.tokens * 2 * s.dim * s.element;
  kept.norms = s.tokens * 2 * kFp32;
  kept.gate_up = s.tokens * 2 * s.ffn * s.element;
  if (config.model.qk_norm()) kept.qk_norm = s.tokens * qk_norm_bytes(config, layer, s);
  const bool shared = layer.rows_of_ranks.size() > 1;
  kept.attention = s.batch * layer.most_attended(2 * s.own_q_channels * s.element + s.own_heads * kFp32,
                                                 2 * s.own_kv_channels * s.element);                  // q, o; k, v
  if (shared) kept.attention += (layer.lighthouse ? own_rows : s.tokens) * s.q_channels * s.element;  // o of all heads
  kept.attention += selection_bytes(config, layer, s);
  return kept;
}

StepMemory step_memory(const RunConfig& config, bool lighthouse, bool on_cuda) {
  const Sizes s(config);
  const std::vector<LayerShape> layers = layer_shapes(config, lighthouse);
  const int64_t all_gradients = num_parameters(config.model) * kFp32;
  const int64_t layer_gradients = layer_parameters(config.model) * kFp32;
  const auto num_layers = static_cast<int64_t>(layers.size());
  const auto inputs = [&](int64_t layer) { return inputs_on_device(config, layer) * s.tokens * s.dim * s.element; };
  const auto keeps_input = [&](int64_t layer) {
    return layer % config.training.recompute_layers == 0 && layer >= offloaded_layers(config);
  };
  const int64_t chunk = std::clamp<int64_t>(kLogitsChunk / (s.vocab * s.element), 1, s.tokens);

  StepPeak peak(persistent(config, s), on_cuda);
  for (const PassGradients& pass : passes_of(config, s)) {
    int64_t kept = kept_around(config, s);
    const auto kept_by_layer = [&](int64_t layer) {
      return kept_by(config, layers[static_cast<size_t>(layer)], s, keeps_input(layer));
    };
    for (int64_t layer = 0; layer < num_layers; ++layer) kept += kept_by_layer(layer);
    peak.see("the loss", pass.before, kept + inputs(num_layers), (chunk * s.vocab + 2 * s.tokens * s.dim) * s.element,
             0);
    for (int64_t layer = num_layers; layer-- > 0;) {
      const LayerShape& shape = layers[static_cast<size_t>(layer)];
      const int64_t gradients = pass.before + std::min(num_layers - layer, pass.num_layers) * layer_gradients;
      const std::string name = "backward of layer " + std::to_string(layer);
      peak.see(name + (shape.lighthouse ? " (lighthouse)" : " (dense)"), gradients, kept + inputs(layer),
               backward_temporaries(config, shape, s) + pass.buffers, attention_workspace(config, shape, s));
      kept -= kept_by_layer(layer);
    }
    if (pass.sums > 0) peak.see("the sum of gradients", pass.sums, 0, 0, 0);
  }
  peak.see("the optimizer", all_gradients, 0, gradient_buffers(config) + transfer_parts(config, on_cuda), 0);
  return peak.most();
}

std::vector<bool> stages_of(const TrainingConfig& training) {
  std::vector<bool> stages;
  if (training.lighthouse_steps > 0) stages.push_back(true);
  if (training.lighthouse_steps < training.steps) stages.push_back(false);
  return stages;
}

int64_t run_bytes(const RunConfig& config, bool on_cuda) {
  int64_t most = 0;
  for (const bool lighthouse : stages_of(config.training)) {
    most = std::max(most, step_memory(config, lighthouse, on_cuda).total());
  }
  return most;
}

int64_t run_host_bytes(const RunConfig& config) { return persistent(config, Sizes(config)).host; }

}  // namespace lighthouse

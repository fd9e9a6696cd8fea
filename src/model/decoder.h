// Llama-3 style decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU. Parameters carry Hugging Face's names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "config/run_config.h"
#include "model/compute_weights.h"
#include "model/execution.h"
#include "model/residual.h"
#include "model/selection_tape.h"
#include "model/weights.h"
#include "parallel/context_row.h"

namespace lighthouse {

/// Which attention the layers run. kDense is plain causal SDPA everywhere: stage 2, validation, generation. kLighthouse
/// is that of stage 1: Lighthouse attention, or what attention.method has in its place.
enum class AttentionMode { kDense, kLighthouse };

class KvCache;
struct LighthouseSettings;
struct Pass;

/// The same tokens, weights, device and number of threads give the same bits, gradients included; on CUDA with
/// execution.deterministic. Not for several threads at once.
class Decoder {
 public:
  /// Fresh weights from `seed`: the same on every machine. Throws InvalidArgument for sizes that do not fit together.
  Decoder(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed, const Execution& execution = {});
  /// The same, but that the parameters hold nothing until they are loaded (model_io.h) or drawn (weights.h), which
  /// takes long for a large model.
  static Decoder unset(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed,
                       const Execution& execution = {});
  Decoder(Decoder&&) = default;
  Decoder& operator=(Decoder&&) = default;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() = default;

  /// This model with other Lighthouse attention: it has the same weights, not a copy of them. Throws InvalidArgument as
  /// the constructor does, and for the gla scorer where this model has no gates.
  Decoder with_attention(const AttentionConfig& attention) const;

  /// Logits [B, N, vocab] fp32 of tokens [B, N] int64, each in [0, vocab). `cu_seqlens`: offsets of packed documents
  /// (B = 1), empty if not packed; positions restart in every document.
  at::Tensor forward(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens = {}) const;

  /// Mean cross-entropy in nats of targets [B, N] int64 given tokens [B, N]; targets of -100 do not count, and the loss
  /// is 0 when none counts. fp32 scalar with autograd, for one backward pass; the logits never exist at once.
  ///
  /// With a `share` the tokens and targets are this rank's, cu_seqlens the whole row's, and so the mean is over the
  /// targets of this rank; all ranks of the group call it and backward, in the same order. Parameters get the gradient
  /// of this rank's loss alone from what lies on it: those of all ranks must be added.
  at::Tensor loss(const at::Tensor& tokens, const at::Tensor& targets, AttentionMode mode,
                  std::span<const int64_t> cu_seqlens = {}, const RowShare& share = {}) const;

  /// The terms of that mean, [B, N] fp32 (fp64 for fp64): the cross-entropy of each target, 0 where it does not count.
  /// No gradient.
  at::Tensor token_losses(const at::Tensor& tokens, const at::Tensor& targets, AttentionMode mode,
                          std::span<const int64_t> cu_seqlens = {}, const RowShare& share = {}) const;

  /// The tokens of each of `num_ranks` that share a row of `seq_len` tokens: whole tiles of its Lighthouse layers, or
  /// equal parts where there are none. Throws InvalidArgument where it has too few.
  std::vector<Span> token_spans(int64_t seq_len, std::span<const int64_t> cu_seqlens, int64_t num_ranks) const;

  /// Logits [B, vocab] of the last token of each sequence alone, as forward's. No gradient.
  at::Tensor last_logits(const at::Tensor& tokens, AttentionMode mode) const;

  /// What the output head reads: [B, N, dim] fp32 (fp64 for fp64), without gradient. `recorded`, unless null, becomes
  /// the tape of the pass.
  at::Tensor hidden_states(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens = {},
                           SelectionTape* recorded = nullptr) const;
  /// The same with Lighthouse attention to what `held` says, whatever the tokens are. Throws InvalidArgument unless
  /// held is of a pass of this model over as many tokens (and documents).
  at::Tensor hidden_states(const at::Tensor& tokens, const SelectionTape& held,
                           std::span<const int64_t> cu_seqlens = {}) const;
  /// Cross-entropy [B, N] in nats of every target given hidden_states, fp32 (fp64 for fp64) without gradient; 0 for
  /// targets of -100.
  at::Tensor head_losses(const at::Tensor& hidden, const at::Tensor& targets) const;

  /// Logits [B, vocab] of the last of `tokens` [B, n], appending their keys and values to the cache. Dense attention,
  /// no gradient.
  at::Tensor decode(const at::Tensor& tokens, KvCache& cache) const;

  /// Trainable tensors, fp32, in a fixed order, named as transformers' model of the family names them: what has
  /// gradients.
  const NamedTensors& parameters() const { return weights_.parameters; }
  /// The values of the same: the parameters themselves, or with execution.weights = kHost the matrices in the memory of
  /// the host, where parameters() have none. They share storage with the model: write into them (under
  /// at::NoGradGuard), do not replace them.
  const NamedTensors& values() const { return weights_.values; }
  /// What products read of each parameter, of its shape, in the compute dtype on the device: a pass makes them again
  /// when values() were written to. Undefined where products read values() themselves.
  std::vector<at::Tensor> casts() const;
  /// Fixed tensors that are not part of the exported model (the gla gate's weights): saved in checkpoints.
  const NamedTensors& buffers() const { return weights_.buffers; }
  const ModelConfig& config() const { return model_; }
  const AttentionConfig& attention() const { return attention_; }
  at::Device device() const { return execution_.device; }

 private:
  struct Unset {};
  Decoder(Unset weights, const ModelConfig& model, const AttentionConfig& attention, uint64_t seed,
          const Execution& execution);
  Decoder(const Decoder&) = default;  // shares the weights
  Pass begin_pass(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens, KvCache* cache,
                  const RowShare& share = {}) const;
  Residual run_layers(const at::Tensor& tokens, AttentionMode mode, const Pass& pass) const;
  at::Tensor normed(const Residual& stream) const;
  at::Tensor logits(const Residual& stream) const;
  at::Tensor last_logits(const Residual& stream) const;
  std::optional<LighthouseSettings> layer_settings(size_t layer, AttentionMode mode) const;
  int64_t layer_window(size_t layer, AttentionMode mode) const;

  ModelConfig model_;
  AttentionConfig attention_;
  Execution execution_;
  Weights weights_;
  mutable ComputeWeights compute_;  ///< of weights_.matrices; brought up to date at the start of a pass
};

}  // namespace lighthouse

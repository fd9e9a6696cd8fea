// Llama-3 style decoder: RMSNorm, RoPE, grouped-query attention, SwiGLU. Parameters carry Hugging Face's Llama names.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <optional>
#include <span>

#include "config/run_config.h"
#include "model/weights.h"

namespace lighthouse {

/// Which attention the layers run. kDense is plain causal SDPA everywhere: stage 2, validation, generation.
enum class AttentionMode { kDense, kLighthouse };

class KvCache;
struct LighthouseSettings;
struct Pass;

/// The same tokens, weights, device and number of threads give the same bits, gradients included.
class Decoder {
 public:
  /// Fresh weights from `seed`: the same on every machine. Throws InvalidArgument for sizes that do not fit together.
  /// `compute_dtype` is the dtype of matrix products and attention (at::kFloat or at::kBFloat16); parameters, norms,
  /// softmax and loss stay fp32. With at::kDouble, for checks, all but the parameters is fp64, logits and loss too.
  Decoder(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed,
          at::ScalarType compute_dtype = at::kFloat, at::Device device = at::kCPU);
  Decoder(Decoder&&) = default;
  Decoder(const Decoder&) = delete;  // a copy would share its weights
  Decoder& operator=(Decoder&&) = default;
  Decoder& operator=(const Decoder&) = delete;
  ~Decoder() = default;

  /// Logits [B, N, vocab] fp32 of tokens [B, N] int64, each in [0, vocab). `cu_seqlens`: offsets of packed documents
  /// (B = 1), empty if not packed; positions restart in every document.
  at::Tensor forward(const at::Tensor& tokens, AttentionMode mode, std::span<const int64_t> cu_seqlens = {}) const;

  /// Mean cross-entropy in nats of targets [B, N] int64 given tokens [B, N]; targets of -100 do not count, and the loss
  /// is 0 when none counts. fp32 scalar with autograd.
  at::Tensor loss(const at::Tensor& tokens, const at::Tensor& targets, AttentionMode mode,
                  std::span<const int64_t> cu_seqlens = {}) const;

  /// Logits [B, vocab] of the last of `tokens` [B, n], appending their keys and values to the cache. Dense attention,
  /// no gradient.
  at::Tensor decode(const at::Tensor& tokens, KvCache& cache) const;

  /// Trainable tensors, fp32, in a fixed order, named as transformers' LlamaForCausalLM (Qwen3ForCausalLM with qk_norm)
  /// names them. They share storage with the model: write into them (under at::NoGradGuard), do not replace them.
  const NamedTensors& parameters() const { return parameters_; }
  /// Fixed tensors that are not part of the exported model (the gla gate's weights): saved in checkpoints.
  const NamedTensors& buffers() const { return buffers_; }
  const ModelConfig& config() const { return model_; }
  at::Device device() const { return device_; }

 private:
  Pass begin_pass(const at::Tensor& tokens, std::span<const int64_t> cu_seqlens, KvCache* cache) const;
  at::Tensor run_layers(const at::Tensor& tokens, AttentionMode mode, const Pass& pass) const;
  at::Tensor head(const at::Tensor& x) const;
  std::optional<LighthouseSettings> layer_settings(size_t layer, AttentionMode mode) const;

  ModelConfig model_;
  AttentionConfig attention_;
  at::ScalarType compute_dtype_;
  at::Device device_;
  NamedTensors parameters_;
  NamedTensors buffers_;
  Weights weights_;  ///< the same tensors, by their place in the model
};

}  // namespace lighthouse

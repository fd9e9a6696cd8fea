// The weights of a decoder, under the names that transformers gives them.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "config/run_config.h"
#include "model/named_tensors.h"

namespace lighthouse {

/// "model.layers.LAYER." + the name beside the field + ".weight". All fp32; matrices are [out, in].
struct LayerWeights {
  at::Tensor input_norm;           ///< [dim] input_layernorm
  at::Tensor q_proj;               ///< [H * D, dim] self_attn.q_proj
  at::Tensor k_proj, v_proj;       ///< [H_kv * D, dim] self_attn.k_proj, self_attn.v_proj
  at::Tensor q_bias;               ///< [H * D] self_attn.q_proj, ".bias"; undefined without qkv_bias, as
  at::Tensor k_bias, v_bias;       ///< [H_kv * D] self_attn.k_proj, self_attn.v_proj
  at::Tensor o_proj;               ///< [dim, H * D] self_attn.o_proj
  at::Tensor q_norm, k_norm;       ///< [D] self_attn.q_norm, self_attn.k_norm; undefined without qk_norm
  at::Tensor post_attention_norm;  ///< [dim] post_attention_layernorm
  at::Tensor gate_proj, up_proj;   ///< [ffn_dim, dim] mlp.gate_proj, mlp.up_proj
  at::Tensor down_proj;            ///< [dim, ffn_dim] mlp.down_proj
  at::Tensor score_gate;           ///< [H, dim] self_attn.gate, a buffer; undefined unless the scorer is gla
};

/// The matrices of a layer as products read them: those with one input lie in one, of which the parameters are rows.
struct LayerMatrices {
  at::Tensor qkv_proj;      ///< [(H + 2 H_kv) * D, dim]: q_proj, k_proj, v_proj
  at::Tensor o_proj;        ///< [dim, H * D]
  at::Tensor gate_up_proj;  ///< [2 ffn_dim, dim]: gate_proj, up_proj
  at::Tensor down_proj;     ///< [dim, ffn_dim]
};

/// All of them.
struct Matrices {
  std::vector<LayerMatrices> layers;
  at::Tensor embed_tokens, lm_head;  ///< [vocab, dim]; one tensor when tied
};

/// Where the values of matrices lie. Those of vectors lie on the device.
enum class WeightPlace { kDevice, kHost };

struct Weights {
  // What takes part in autograd, on the device. With the matrices' values on the host these have no memory there: they
  // are what has a gradient, of their shape, and are not read.
  at::Tensor embed_tokens;  ///< [vocab, dim] model.embed_tokens.weight
  std::vector<LayerWeights> layers;
  at::Tensor norm;     ///< [dim] model.norm.weight
  at::Tensor lm_head;  ///< [vocab, dim] lm_head.weight; embed_tokens itself when tied

  Matrices matrices;        ///< their values, fp32, page-locked where they are on the host of a GPU; no autograd
  NamedTensors parameters;  ///< the trainable ones, in the order in which a forward pass meets them
  NamedTensors values;      ///< what holds the values of each parameter: itself, or a matrix on the host
  NamedTensors buffers;     ///< those that are not trained
};

/// Weights of which the parameters hold nothing yet: they are to be drawn or loaded. Gates of the gla scorer are normal
/// with 0.02, every value a function of (seed, tensor name, index). Throws std::runtime_error where the host has no
/// memory for them.
Weights make_weights(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed, at::Device device,
                     WeightPlace place = WeightPlace::kDevice);

/// Fresh `values`: matrices normal with standard deviation `std`, norms one, biases zero. Every value is a function
/// of (seed, tensor name, index), the same on every device.
void draw_parameters(const NamedTensors& values, double std, uint64_t seed);

}  // namespace lighthouse

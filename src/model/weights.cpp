#include "model/weights.h"

#include <ATen/Parallel.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/full.h>

#include <limits>
#include <string>

#include "model/page_locked.h"
#include "model/random.h"

namespace lighthouse {
namespace {

/// On the CPU, so that every device has the same values.
at::Tensor normal_tensor(uint64_t stream, at::IntArrayRef shape, double std) {
  at::Tensor tensor = at::empty(shape, at::kFloat);
  auto* const values = tensor.mutable_data_ptr<float>();
  constexpr int64_t kGrain = 1 << 14;
  at::parallel_for(0, tensor.numel(), kGrain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      values[i] = static_cast<float>(std * random_normal(stream, static_cast<uint64_t>(i)));
    }
  });
  return tensor;
}

/// A parameter of a stacked matrix.
struct MatrixPart {
  std::string name;
  int64_t out;
  at::Tensor* parameter;
};

class WeightMaker {
 public:
  WeightMaker(Weights& weights, uint64_t seed, at::Device device, WeightPlace place)
      : weights_(weights), seed_(seed), device_(device), place_(place), no_value_(no_value(device)) {}

  /// The parameter; `value` becomes what holds its values.
  at::Tensor matrix(const std::string& name, int64_t out, int64_t in, at::Tensor& value) {
    value = unset(out, in);
    return parameter(name, value);
  }
  /// Several matrices in the memory of one, which is returned; `parts` are its rows, each a parameter.
  at::Tensor stacked(const std::vector<MatrixPart>& parts, int64_t in) {
    int64_t out = 0;
    for (const MatrixPart& part : parts) out += part.out;
    const at::Tensor whole = unset(out, in);
    int64_t row = 0;
    for (const MatrixPart& part : parts) {
      *part.parameter = parameter(part.name, whole.narrow(0, row, part.out).detach());
      row += part.out;
    }
    return whole;
  }
  at::Tensor vector(const std::string& name, int64_t channels) {
    return parameter(name, at::empty({channels}, at::TensorOptions(at::kFloat).device(device_)));
  }
  at::Tensor gate(const std::string& name, int64_t out, int64_t in) {
    constexpr double kGateStd = 0.02;
    const at::Tensor gate = normal_tensor(random_stream(seed_, name), {out, in}, kGateStd).to(device_);
    weights_.buffers.emplace_back(name, gate);
    return gate;
  }

 private:
  /// NaN, so that one who reads a matrix where it has no memory does not go on.
  static at::Tensor no_value(at::Device device) {
    return at::full({}, std::numeric_limits<float>::quiet_NaN(), at::TensorOptions(at::kFloat).device(device));
  }
  at::Tensor unset(int64_t out, int64_t in) const {
    if (place_ == WeightPlace::kDevice) return at::empty({out, in}, at::TensorOptions(at::kFloat).device(device_));
    return page_locked(at::empty({out, in}, at::kFloat), device_);
  }
  at::Tensor parameter(const std::string& name, const at::Tensor& value) {
    const bool elsewhere = place_ == WeightPlace::kHost && value.dim() == 2;
    at::Tensor parameter = elsewhere ? no_value_.expand(value.sizes()).detach() : value.detach();
    parameter.set_requires_grad(true);
    weights_.parameters.emplace_back(name, parameter);
    weights_.values.emplace_back(name, elsewhere ? value : parameter);
    return parameter;
  }

  Weights& weights_;
  uint64_t seed_;
  at::Device device_;
  WeightPlace place_;
  at::Tensor no_value_;
};

LayerWeights make_layer(const ModelConfig& model, bool gla, const std::string& prefix, WeightMaker& make,
                        LayerMatrices& matrices) {
  const int64_t q_channels = model.num_heads * model.head_dim;
  const int64_t kv_channels = model.num_kv_heads * model.head_dim;
  LayerWeights layer;
  layer.input_norm = make.vector(prefix + "input_layernorm.weight", model.dim);
  matrices.qkv_proj = make.stacked({{prefix + "self_attn.q_proj.weight", q_channels, &layer.q_proj},
                                    {prefix + "self_attn.k_proj.weight", kv_channels, &layer.k_proj},
                                    {prefix + "self_attn.v_proj.weight", kv_channels, &layer.v_proj}},
                                   model.dim);
  if (model.qkv_bias()) {
    layer.q_bias = make.vector(prefix + "self_attn.q_proj.bias", q_channels);
    layer.k_bias = make.vector(prefix + "self_attn.k_proj.bias", kv_channels);
    layer.v_bias = make.vector(prefix + "self_attn.v_proj.bias", kv_channels);
  }
  layer.o_proj = make.matrix(prefix + "self_attn.o_proj.weight", model.dim, q_channels, matrices.o_proj);
  if (model.qk_norm()) {
    layer.q_norm = make.vector(prefix + "self_attn.q_norm.weight", model.head_dim);
    layer.k_norm = make.vector(prefix + "self_attn.k_norm.weight", model.head_dim);
  }
  layer.post_attention_norm = make.vector(prefix + "post_attention_layernorm.weight", model.dim);
  matrices.gate_up_proj = make.stacked({{prefix + "mlp.gate_proj.weight", model.ffn_dim, &layer.gate_proj},
                                        {prefix + "mlp.up_proj.weight", model.ffn_dim, &layer.up_proj}},
                                       model.dim);
  layer.down_proj = make.matrix(prefix + "mlp.down_proj.weight", model.dim, model.ffn_dim, matrices.down_proj);
  if (gla) layer.score_gate = make.gate(prefix + "self_attn.gate.weight", model.num_heads, model.dim);
  return layer;
}

}  // namespace

Weights make_weights(const ModelConfig& model, const AttentionConfig& attention, uint64_t seed, at::Device device,
                     WeightPlace place) {
  Weights weights;
  WeightMaker make(weights, seed, device, place);
  const int64_t vocab = model.vocab_size;
  weights.embed_tokens = make.matrix("model.embed_tokens.weight", vocab, model.dim, weights.matrices.embed_tokens);
  for (int64_t layer = 0; layer < model.num_layers; ++layer) {
    const std::string prefix = "model.layers." + std::to_string(layer) + ".";
    LayerMatrices& matrices = weights.matrices.layers.emplace_back();
    weights.layers.push_back(make_layer(model, attention.scorer == Scorer::kGla, prefix, make, matrices));
  }
  weights.norm = make.vector("model.norm.weight", model.dim);
  if (model.tie_embeddings) {
    weights.lm_head = weights.embed_tokens;
    weights.matrices.lm_head = weights.matrices.embed_tokens;
  } else {
    weights.lm_head = make.matrix("lm_head.weight", vocab, model.dim, weights.matrices.lm_head);
  }
  return weights;
}

void draw_parameters(const NamedTensors& values, double std, uint64_t seed) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : values) {
    if (tensor.dim() == 1) {
      tensor.fill_(name.ends_with(".bias") ? 0 : 1);
    } else {
      tensor.copy_(normal_tensor(random_stream(seed, name), tensor.sizes(), std));
    }
  }
}

}  // namespace lighthouse

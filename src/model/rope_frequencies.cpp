#include "model/rope_frequencies.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/clamp.h>
#include <ATen/ops/full.h>
#include <ATen/ops/pow.h>
#include <ATen/ops/where.h>

#include <algorithm>
#include <cmath>
#include <numbers>

#include "lighthouse/check.h"

namespace lighthouse {
namespace {

/// [D/2] 2c / D
at::Tensor exponents(int64_t head_dim, at::Device device) {
  return at::arange(0, head_dim, 2, at::TensorOptions(at::kFloat).device(device)) / head_dim;
}

/// Positions as if they were `factor` times as close to one another.
at::Tensor linear(const ModelConfig& model, const at::Tensor& inverse) { return inverse / model.rope_factor; }

/// A larger base for sequences longer than the model was trained with.
at::Tensor dynamic(const ModelConfig& model, const at::Tensor& inverse, int64_t longest) {
  if (longest <= model.rope_original_len) return inverse;
  const auto dim = static_cast<double>(model.head_dim);
  const at::Tensor length = at::full({}, static_cast<double>(longest), inverse.options());
  const at::Tensor stretch = model.rope_factor * length / model.rope_original_len - (model.rope_factor - 1);
  const at::Tensor base = model.rope_theta * at::pow(stretch, dim / (dim - 2));
  return at::pow(base, exponents(model.head_dim, inverse.device())).reciprocal();
}

/// The channel that turns so often in the original length.
double channel_of(const ModelConfig& model, double turns) {
  const double length = static_cast<double>(model.rope_original_len) / (turns * 2 * std::numbers::pi);
  return static_cast<double>(model.head_dim) * std::log(length) / (2 * std::log(model.rope_theta));
}

/// Slow channels as with `linear`, fast ones as they were, a ramp between them.
at::Tensor yarn(const ModelConfig& model, at::Device device) {
  const at::Tensor waves = at::pow(model.rope_theta, exponents(model.head_dim, device));
  const double low = std::max(std::floor(channel_of(model, model.rope_beta_fast)), 0.0);
  double high = std::min(std::ceil(channel_of(model, model.rope_beta_slow)), static_cast<double>(model.head_dim - 1));
  if (low == high) high += 0.001;
  const at::Tensor ramp = at::clamp((at::arange(model.head_dim / 2, waves.options()) - low) / (high - low), 0, 1);
  const at::Tensor stays = 1 - ramp;
  return (model.rope_factor * waves).reciprocal() * (1 - stays) + waves.reciprocal() * stays;
}

/// Long waves as with `linear`, short ones as they were, those between smoothly from one to the other.
at::Tensor llama3(const ModelConfig& model, const at::Tensor& inverse) {
  const auto length = static_cast<double>(model.rope_original_len);
  const double low = model.rope_low_freq_factor;
  const double high = model.rope_high_freq_factor;
  const at::Tensor waves = 2 * std::numbers::pi / inverse;
  const at::Tensor is_long = waves > length / low;
  const at::Tensor scaled = at::where(is_long, inverse / model.rope_factor, inverse);
  const at::Tensor share = (length / waves - low) / (high - low);
  const at::Tensor smooth = (1 - share) * scaled / model.rope_factor + share * scaled;
  return at::where((waves < length / high).logical_or(is_long), scaled, smooth);
}

double yarn_attention_factor(const ModelConfig& model) {
  return model.rope_attention_factor > 0 ? model.rope_attention_factor : 0.1 * std::log(model.rope_factor) + 1;
}

}  // namespace

RopeFrequencies rope_frequencies(const ModelConfig& model, int64_t longest, at::Device device) {
  const auto inverse = [&] { return at::pow(model.rope_theta, exponents(model.head_dim, device)).reciprocal(); };
  switch (model.rope_scaling) {
    case RopeScaling::kNone:
      return {inverse()};
    case RopeScaling::kLinear:
      return {linear(model, inverse())};
    case RopeScaling::kDynamic:
      return {dynamic(model, inverse(), longest)};
    case RopeScaling::kYarn:
      return {yarn(model, device), yarn_attention_factor(model)};
    case RopeScaling::kLlama3:
      return {llama3(model, inverse())};
  }
  throw InvalidArgument("a scaling of RoPE that is none");
}

void check_cached_rope(const ModelConfig& model, int64_t seq_len) {
  LIGHTHOUSE_CHECK(model.rope_scaling != RopeScaling::kDynamic || seq_len <= model.rope_original_len,
                   "Decoder: ", seq_len,
                   " tokens with a cache; model.rope_scaling = \"dynamic\" turns heads of more than "
                   "model.rope_original_len = ",
                   model.rope_original_len, " tokens otherwise with every token more, and can generate no further");
}

}  // namespace lighthouse

#include "model/huggingface_rope.h"

#include <array>
#include <cmath>
#include <optional>

namespace lighthouse {
namespace {
using nlohmann::json;

constexpr const char* kUnscaled = "default";  // RopeScaling::kNone, in transformers
constexpr const char* kOriginal = "original_max_position_embeddings";

json scaling_json(const ModelConfig& model) {
  const RopeScaling scaling = model.rope_scaling;
  if (scaling == RopeScaling::kNone) return {{"rope_type", kUnscaled}};
  json rope = {{"rope_type", word(scaling)}, {"factor", model.rope_factor}};
  if (scaling == RopeScaling::kYarn || scaling == RopeScaling::kLlama3) rope[kOriginal] = model.rope_original_len;
  if (scaling == RopeScaling::kLlama3) {
    rope["low_freq_factor"] = model.rope_low_freq_factor;
    rope["high_freq_factor"] = model.rope_high_freq_factor;
  }
  if (scaling == RopeScaling::kYarn) {
    rope["beta_fast"] = model.rope_beta_fast;
    rope["beta_slow"] = model.rope_beta_slow;
    if (model.rope_attention_factor > 0) rope["attention_factor"] = model.rope_attention_factor;
  }
  return rope;
}

std::string rope_type(const JsonKeys& rope) {
  const auto type = rope.get<std::string>("rope_type", rope.get<std::string>("type", kUnscaled));
  LIGHTHOUSE_CHECK(rope.get<std::string>("type", type) == type, "'", rope.source(),
                   "': rope_type = ", json(type).dump(), " and type = ", json(rope.get<std::string>("type")).dump(),
                   " contradict one another");
  return type;
}

/// As DeepSeek's models give it: two numbers whose quotient it is.
double yarn_attention_factor(const JsonKeys& rope, double factor) {
  const auto mscale = rope.get<double>("mscale", 0);
  const auto mscale_all_dim = rope.get<double>("mscale_all_dim", 0);
  if (rope.has("attention_factor")) return rope.get<double>("attention_factor");
  if (mscale == 0 || mscale_all_dim == 0) return 0;
  const auto scale = [&](double weight) { return factor <= 1 ? 1.0 : 0.1 * weight * std::log(factor) + 1; };
  return scale(mscale) / scale(mscale_all_dim);
}

void parse_yarn(const JsonKeys& rope, const JsonKeys& keys, ModelConfig& model) {
  rope.require<bool>("truncate", true);
  const auto length = static_cast<double>(model.rope_original_len);
  model.rope_factor =
      rope.has("factor") ? rope.get<double>("factor") : static_cast<double>(keys.get<int64_t>(kMaxPositions)) / length;
  model.rope_beta_fast = rope.get<double>("beta_fast", model.rope_beta_fast);
  model.rope_beta_slow = rope.get<double>("beta_slow", model.rope_beta_slow);
  model.rope_attention_factor = yarn_attention_factor(rope, model.rope_factor);
}

/// The scaling of one of the two objects that may hold it.
void parse_scaling(const JsonKeys& rope, const JsonKeys& keys, ModelConfig& model) {
  rope.require<double>("partial_rotary_factor", 1.0);
  const std::string type = rope_type(rope);
  if (type == kUnscaled) return;
  model.rope_scaling = find_word<RopeScaling>(type).value_or(RopeScaling::kNone);
  if (model.rope_scaling == RopeScaling::kNone) {
    rope.refuse(rope.has("rope_type") ? "rope_type" : "type", "default, linear, dynamic, yarn and llama3 are");
  }
  if (model.rope_scaling == RopeScaling::kDynamic) model.rope_original_len = keys.get<int64_t>(kMaxPositions);
  const bool from_length = model.rope_scaling == RopeScaling::kYarn || model.rope_scaling == RopeScaling::kLlama3;
  if (from_length) {
    LIGHTHOUSE_CHECK(
        !keys.has(kOriginal) || !rope.has(kOriginal) || keys.get<int64_t>(kOriginal) == rope.get<int64_t>(kOriginal),
        "'", keys.source(), "': ", kOriginal, " = ", keys.get<int64_t>(kOriginal, 0), " and beside its rope_type ",
        rope.get<int64_t>(kOriginal, 0), " contradict one another; leave one out");
    model.rope_original_len = keys.has(kOriginal)   ? keys.get<int64_t>(kOriginal)
                              : rope.has(kOriginal) ? rope.get<int64_t>(kOriginal)
                                                    : keys.get<int64_t>(kMaxPositions);
  }
  if (model.rope_scaling == RopeScaling::kYarn) return parse_yarn(rope, keys, model);
  model.rope_factor = rope.get<double>("factor");
  if (model.rope_scaling != RopeScaling::kLlama3) return;
  model.rope_low_freq_factor = rope.get<double>("low_freq_factor");
  model.rope_high_freq_factor = rope.get<double>("high_freq_factor");
}

}  // namespace

void write_huggingface_rope(const ModelConfig& model, json& config) {
  json rope = scaling_json(model);
  if (model.rope_scaling != RopeScaling::kNone) config["rope_scaling"] = rope;
  if (model.rope_scaling == RopeScaling::kDynamic) config[kMaxPositions] = model.rope_original_len;
  rope["rope_theta"] = model.rope_theta;
  config["rope_parameters"] = rope;
  config["rope_theta"] = model.rope_theta;
}

void parse_huggingface_rope(const JsonKeys& keys, double default_theta, ModelConfig& model) {
  keys.require<double>("partial_rotary_factor", 1.0);
  std::optional<double> theta;
  if (keys.has("rope_theta")) theta = keys.get<double>("rope_theta");
  std::optional<ModelConfig> first;
  for (const char* name : {"rope_scaling", "rope_parameters"}) {
    if (!keys.has(name)) continue;
    const JsonKeys rope = keys.inner(name);
    parse_scaling(rope, keys, model);
    LIGHTHOUSE_CHECK(!first || *first == model, "'", keys.source(),
                     "': rope_scaling and rope_parameters contradict one another; leave one out");
    first = model;
    if (!rope.has("rope_theta")) continue;
    const auto own = rope.get<double>("rope_theta");
    LIGHTHOUSE_CHECK(theta.value_or(own) == own, "'", keys.source(), "': rope_theta = ", *theta, " and ", name,
                     ".rope_theta = ", own, " contradict one another; leave one out");
    theta = own;
  }
  model.rope_theta = theta.value_or(default_theta);
}

}  // namespace lighthouse

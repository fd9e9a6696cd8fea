#include "plan/flops.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <cmath>
#include <vector>

namespace lighthouse {
namespace {

/// Data sheets, dense. The first row whose every word stands in the device's name counts.
struct Peak {
  std::array<std::string_view, 2> words;
  double bf16, fp32;
};
constexpr Peak kPeaks[] = {
    {{"H100", "PCIE"}, 756e12, 51.2e12}, {{"H100", "NVL"}, 835e12, 60e12},  {{"H100", ""}, 989.4e12, 66.9e12},
    {{"H200", "NVL"}, 835e12, 60e12},    {{"H200", ""}, 989.4e12, 66.9e12}, {{"GH200", ""}, 989.4e12, 66.9e12},
    {{"B200", ""}, 2.25e15, 75e12},      {{"GB200", ""}, 2.5e15, 80e12},    {{"A100", ""}, 312e12, 19.5e12},
    {{"A40", ""}, 149.7e12, 37.4e12},    {{"A10", ""}, 125e12, 31.2e12},    {{"L40S", ""}, 362e12, 91.6e12},
    {{"L40", ""}, 181e12, 90.5e12},      {{"L4", ""}, 121e12, 30.3e12},     {{"4090", ""}, 165.2e12, 82.6e12},
};

/// "NVIDIA A100-SXM4-80GB" -> NVIDIA, A100, SXM4, 80GB: L4 is then no part of L40S.
std::vector<std::string> words_of(std::string_view name) {
  std::vector<std::string> words(1);
  for (const char c : name) {
    if (std::isalnum(static_cast<unsigned char>(c)) != 0) {
      words.back() += static_cast<char>(std::toupper(static_cast<unsigned char>(c)));
    } else if (!words.back().empty()) {
      words.emplace_back();
    }
  }
  return words;
}

}  // namespace

double attention_flops(double pairs, double num_heads, double head_dim) { return 4 * head_dim * num_heads * pairs; }

double causal_attention_flops(double length, double num_heads, double head_dim) {
  return attention_flops(length * (length + 1) / 2, num_heads, head_dim);
}

double scorer_flops(const RunConfig& config) {
  const auto heads = static_cast<double>(config.model.num_heads);
  const auto head_dim = static_cast<double>(config.model.head_dim);
  const auto seq_len = static_cast<double>(config.training.seq_len);
  const auto dilation = static_cast<double>(config.attention.dilation);
  if (config.attention.scorer == Scorer::kDilated) {
    return 2 * causal_attention_flops(std::ceil(seq_len / dilation), dilation * heads, head_dim);
  }
  // A token adds an outer product to the state and multiplies it by one vector: 4 D^2 a pass.
  if (config.attention.scorer == Scorer::kGla) return 2 * 4 * head_dim * head_dim * heads * seq_len;
  return 0;
}

double step_flops(const RunConfig& config, bool lighthouse) {
  const Sizes sizes(on_one_rank(config));
  const auto tokens = static_cast<double>(sizes.tokens);
  const auto batch = static_cast<double>(sizes.batch);
  const auto heads = static_cast<double>(config.model.num_heads);
  const auto head_dim = static_cast<double>(config.model.head_dim);
  const int64_t weights = config.model.num_layers * layer_matrices(sizes) + sizes.vocab * sizes.dim;
  double flops = 3 * 2 * tokens * static_cast<double>(weights);
  for (const LayerShape& layer : layer_shapes(on_one_rank(config), lighthouse)) {
    flops += batch * (1 + kAttentionBackward) * attention_flops(static_cast<double>(layer.pairs), heads, head_dim);
    if (layer.lighthouse) flops += batch * scorer_flops(config);
  }
  return flops * static_cast<double>(config.training.gradient_accumulation);
}

std::optional<double> device_peak_flops(std::string_view device_name, Precision precision) {
  const std::vector<std::string> words = words_of(device_name);
  const auto named = [&](std::string_view word) {
    return word.empty() || std::find(words.begin(), words.end(), word) != words.end();
  };
  for (const Peak& peak : kPeaks) {
    if (named(peak.words[0]) && named(peak.words[1])) return precision == Precision::kBf16 ? peak.bf16 : peak.fp32;
  }
  return std::nullopt;
}

}  // namespace lighthouse

// What the tests of the trainer share: a tiny run that takes milliseconds a step, and comparisons of bits.
#pragma once

#include <ATen/core/Tensor.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <nlohmann/json.hpp>
#include <sstream>
#include <string>
#include <vector>

#include "config/run_config.h"
#include "cpp/io/temporary_folder.h"
#include "model/random.h"
#include "model/tensor_range.h"
#include "model/weights.h"
#include "support/same_bits.h"

namespace lighthouse {

/// Sentences of twelve words in random order: the loss falls at once, and keeps falling.
inline std::string tiny_corpus(size_t bytes = 40000) {
  constexpr std::array kWords = {"the ", "light", "house ", "stands ", "at ",  "sea, ",
                                 "far ", "from ", "land. ", "ships ",  "see ", "it.\n"};
  std::string text;
  for (uint64_t i = 0; text.size() < bytes; ++i) text += kWords.at(random_bits(5, i) % kWords.size());
  return text;
}

/// 12 steps of which 8 in stage 1, four sequences of 64 tokens a step in two micro-batches; one thread, so that tests
/// may fork.
inline RunConfig tiny_config(const TemporaryFolder& folder) {
  const auto corpus = folder / "corpus.txt";
  if (!std::filesystem::exists(corpus)) write_bytes(corpus, tiny_corpus());
  RunConfig config;
  config.model.dim = 32;
  config.model.num_layers = 2;
  config.model.num_heads = 2;
  config.model.num_kv_heads = 1;
  config.model.head_dim = 16;
  config.model.ffn_dim = 48;
  config.attention.pooling_factor = 2;
  config.attention.topk = 4;
  config.attention.tile_topk = 2;
  config.attention.full_attention_layers = {0};
  config.training.steps = 12;
  config.training.lighthouse_steps = 8;
  config.training.seq_len = 64;
  config.training.batch_size = 2;
  config.training.gradient_accumulation = 2;
  config.training.device = DeviceChoice::kCpu;
  config.training.threads = 1;
  config.optimizer.warmup_steps = 3;
  config.data.path = corpus.string();
  config.validation = {.interval = 5, .sequences = 2};
  config.checkpoint = {.interval = 3, .keep = 2};
  config.logging.run_dir = (folder / "run").string();
  return config;
}

/// The same run with something else than Lighthouse attention in stage 1, of 16 tokens.
inline RunConfig with_control(RunConfig config, AttentionMethod method) {
  config.attention = {};
  config.attention.method = method;
  config.attention.span = 16;
  return config;
}

inline bool same_tensors(const NamedTensors& a, const NamedTensors& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first && same_bits(x.second, y.second); });
}

inline bool same_tensors(const std::vector<TensorRange>& a, const std::vector<TensorRange>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const TensorRange& x, const TensorRange& y) {
    return x.name == y.name && x.shape == y.shape && x.begin == y.begin && same_bits(x.values, y.values);
  });
}

inline NamedTensors copies(const NamedTensors& tensors) {
  NamedTensors result;
  for (const auto& [name, tensor] : tensors) result.emplace_back(name, tensor.detach().clone());
  return result;
}

/// The lines of a run's metrics.jsonl.
inline std::vector<nlohmann::json> read_metrics(const std::filesystem::path& run_dir) {
  std::vector<nlohmann::json> lines;
  std::istringstream text(read_bytes(run_dir / "metrics.jsonl"));
  for (std::string line; std::getline(text, line);) lines.push_back(nlohmann::json::parse(line));
  return lines;
}

/// The same without what a clock decides.
inline std::vector<nlohmann::json> read_timeless_metrics(const std::filesystem::path& run_dir) {
  std::vector<nlohmann::json> lines = read_metrics(run_dir);
  for (nlohmann::json& line : lines) {
    line.erase("time");
    line.erase("train_seconds");
    line.erase("tokens_per_s");
    line.erase("mfu");
    line.erase("peak_memory");
    line.erase("parts");
    line.erase("ranks");
  }
  return lines;
}

}  // namespace lighthouse

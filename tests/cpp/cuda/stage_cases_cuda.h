// Random cases of the stages and their plans on both sides.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <ostream>
#include <random>
#include <vector>

#include "cpp/cuda/device_array.h"
#include "lighthouse/device_plan.h"

namespace lighthouse::cuda_test {

struct Case {
  SelectionConfig config;
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim;
  std::vector<int64_t> cu_seqlens;
};

inline void PrintTo(const Case& c, std::ostream* out) {
  *out << "L=" << c.config.num_levels << " p=" << c.config.pooling_factor << " k=" << c.config.topk
       << " m=" << c.config.tile_topk << " cover=" << c.config.cover_prefix << " B=" << c.batch << " N=" << c.seq_len
       << " H=" << c.num_heads << "/" << c.num_kv_heads << " D=" << c.head_dim << " docs=" << c.cu_seqlens.size();
}

inline Case random_case(std::mt19937_64& random, int64_t max_len) {
  const auto up_to = [&](int64_t limit) { return static_cast<int64_t>(random() % static_cast<uint64_t>(limit)) + 1; };
  Case c;
  c.config.num_levels = up_to(5);
  c.config.pooling_factor = int64_t{2} << (random() % 4);
  if (c.config.num_levels == 5 && c.config.pooling_factor > 4) c.config.pooling_factor = 2;
  c.config.topk = up_to(random() % 2 ? 8 : random() % 3 ? 40 : 700);
  c.config.tile_topk = random() % 2 ? 128 : up_to(40);
  c.config.cover_prefix = random() % 2;
  c.batch = up_to(2);
  c.seq_len = up_to(max_len);
  c.num_kv_heads = up_to(3);
  c.num_heads = c.num_kv_heads * up_to(3);
  const int64_t dims[] = {8, 64, 80, 96, 128, 192, 256, 20, 7};
  c.head_dim = dims[random() % 9];
  if (random() % 3 == 0) {
    c.batch = 1;
    c.cu_seqlens = {0};
    for (int64_t i = up_to(6); i > 1; --i) c.cu_seqlens.push_back(static_cast<int64_t>(random() % (c.seq_len + 1)));
    c.cu_seqlens.push_back(c.seq_len);
    std::sort(c.cu_seqlens.begin(), c.cu_seqlens.end());
  }
  return c;
}

/// A plan on both sides.
struct Plans {
  SequencePlan host;
  std::vector<DeviceDocument> table;
  DeviceArray<DeviceDocument> documents;
  DevicePlan device;
  explicit Plans(const Case& c) : Plans(make_plan(c.config, c.seq_len, c.cu_seqlens)) {}
  explicit Plans(const SequencePlan& plan)
      : host(plan), table(device_documents(host)), documents(table), device(make_device_plan(host, table)) {
    device.documents = documents.get();
  }
};

inline std::vector<float> random_scores(std::mt19937_64& random, size_t size) {
  std::vector<float> scores(size);
  const int style = static_cast<int>(random() % 3);  // distinct, many ties, wild
  for (float& score : scores) {
    const auto value = static_cast<float>(random() % 100000) / 1000.0f - 20.0f;
    score = style == 0 ? value : std::round(value / 10.0f);
    if (style == 2 && random() % 8 == 0) {
      const float wild[] = {std::nanf(""), INFINITY, -INFINITY, 0.0f, -0.0f, 1e-42f};
      score = wild[random() % 6];
    }
  }
  return scores;
}

}  // namespace lighthouse::cuda_test

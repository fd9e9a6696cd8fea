// Cases that the tests of the stages draw: a seed gives the same case on every machine.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <ostream>
#include <random>
#include <vector>

#include "lighthouse/geometry.h"
#include "reference/lighthouse.h"

namespace lighthouse {

struct StageCase {
  SelectionConfig config;
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim;
  std::vector<int64_t> cu_seqlens;

  SequencePlan plan() const { return make_plan(config, seq_len, cu_seqlens); }
  reference::Sequence sequence() const { return {seq_len, config, cu_seqlens}; }
  int64_t coarse_span() const { return int64_t{1} << ((config.num_levels - 1) * config.log2_pool()); }
};

inline void PrintTo(const StageCase& c, std::ostream* out) {
  *out << "L=" << c.config.num_levels << " p=" << c.config.pooling_factor << " k=" << c.config.topk
       << " m=" << c.config.tile_topk << " cover=" << c.config.cover_prefix << " B=" << c.batch << " N=" << c.seq_len
       << " H=" << c.num_heads << "/" << c.num_kv_heads << " D=" << c.head_dim << " cu=";
  for (const int64_t bound : c.cu_seqlens) *out << bound << " ";
}

class CaseGenerator {
 public:
  explicit CaseGenerator(uint64_t seed) : random_(seed) {}

  /// In [0, limit).
  int64_t below(int64_t limit) { return static_cast<int64_t>(random_() % static_cast<uint64_t>(limit)); }
  template <typename T, size_t kSize>
  T one_of(const T (&options)[kSize]) {
    return options[below(kSize)];
  }

  /// Every L and p; half of them with few levels, as users would have.
  StageCase stage_case(int64_t max_len) {
    StageCase c{};
    c.config.num_levels = 1 + below(below(2) == 0 ? 4 : kMaxLevels);
    c.config.pooling_factor = one_of({2, 4, 8, 16});
    c.config.topk = 1 + below(one_of({1, 4, 12, 300}));
    c.config.tile_topk = below(2) == 0 ? 128 : 1 + below(40);
    c.config.cover_prefix = below(2) == 0;
    c.batch = 1 + below(2);
    c.seq_len = 1 + below(below(5) == 0 ? 20 : max_len);
    c.num_kv_heads = 1 + below(3);
    c.num_heads = c.num_kv_heads * (1 + below(3));
    c.head_dim = one_of({1, 3, 8, 16, 20, 64, 72, 131});
    const bool entries_fit_int32 = c.coarse_span() <= (1 << 20);
    if (below(2) == 0 && entries_fit_int32) pack(c);
    return c;
  }

  /// fp32 scores: distinct ones, many ties, or many special values.
  std::vector<float> scores(int64_t size) {
    const int64_t style = below(3);
    std::vector<float> values(static_cast<size_t>(size));
    for (float& value : values) {
      value = static_cast<float>(below(1000000)) / 1000.0F - 200.0F;
      if (style > 0) value = std::round(value / 100.0F);
      if (style == 2 && below(3) == 0) {
        constexpr float kInfinity = std::numeric_limits<float>::infinity();
        value = one_of({std::nanf(""), kInfinity, -kInfinity, 0.0F, -0.0F, 1e-42F, -1e-42F});
      }
    }
    return values;
  }

  /// Integers in [-4, 4]: their sums and power-of-two means are exact.
  reference::Tensor integers(int64_t batch, int64_t length, int64_t heads, int64_t channels) {
    reference::Tensor tensor(batch, length, heads, channels);
    for (double& value : tensor.values) value = static_cast<double>(below(9) - 4);
    return tensor;
  }
  reference::Tensor normals(int64_t batch, int64_t length, int64_t heads, int64_t channels) {
    reference::Tensor tensor(batch, length, heads, channels);
    for (double& value : tensor.values) {
      // The sum of twelve uniform numbers: std::normal_distribution differs between libraries.
      value = -6;
      for (int i = 0; i < 12; ++i) value += static_cast<double>(random_() >> 11) / 9007199254740992.0;
    }
    return tensor;
  }

 private:
  /// Cuts the row into documents, empty ones among them.
  void pack(StageCase& c) {
    c.batch = 1;
    c.cu_seqlens = {0, c.seq_len};
    for (int64_t i = below(6); i > 0; --i) {
      const int64_t cut = below(c.seq_len + 1);
      c.cu_seqlens.insert(c.cu_seqlens.end(), static_cast<size_t>(1 + below(2)), cut);
    }
    std::sort(c.cu_seqlens.begin(), c.cu_seqlens.end());
  }

  std::mt19937_64 random_;
};

/// fp32 scores [B, H_kv, N] as the reference takes them.
inline reference::Tensor score_tensor(const std::vector<float>& scores, const StageCase& c) {
  reference::Tensor tensor(c.batch, c.seq_len, c.num_kv_heads, 1);
  size_t next = 0;
  for (int64_t b = 0; b < c.batch; ++b) {
    for (int64_t kv_head = 0; kv_head < c.num_kv_heads; ++kv_head) {
      for (int64_t token = 0; token < c.seq_len; ++token) *tensor.at(b, token, kv_head) = scores[next++];
    }
  }
  return tensor;
}

}  // namespace lighthouse

#include "lighthouse/score.h"

#include <cmath>

#include "stages/row_sum.h"

namespace lighthouse {
namespace {

/// Two sums over vectors of channels, so that one addition need not wait for the last.
template <typename T>
float norm(const T* x, int64_t channels) {
  Lanes<T> even = {};
  Lanes<T> odd = {};
  int64_t channel = 0;
  for (; channel + 2 * kLanes<T> <= channels; channel += 2 * kLanes<T>) {
    const Lanes<T> first = load(x + channel);
    const Lanes<T> second = load(x + channel + kLanes<T>);
    even += first * first;
    odd += second * second;
  }
  for (; channel < channels; channel += kLanes<T>) {
    const Lanes<T> rest = load_some(x + channel, std::min<int64_t>(kLanes<T>, channels - channel));
    even += rest * rest;
  }
  return static_cast<float>(std::sqrt(sum_of_lanes<T>(even + odd)));
}

template <typename T>
void write_norms(const TokenNormParams& params, const ParallelFor& parallel_for) {
  const int64_t group = params.num_heads / params.num_kv_heads;
  const auto write_piece = [&](int64_t batch, int64_t kv_head, int64_t begin, int64_t end) {
    float* score = params.score + batch * params.score_batch_stride + kv_head * params.score_head_stride;
    for (int64_t token = begin; token < end; ++token) {
      float largest = NAN;
      for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
        largest = std::fmax(largest, norm(head_rows<T>(params.x, batch, head)[token], params.head_dim));
      }
      score[token * params.score_seq_stride] = largest;
    }
  };
  for_each_piece(parallel_for, params.batch, params.seq_len, params.num_kv_heads, write_piece);
}

}  // namespace

void token_norms(const TokenNormParams& params, const ParallelFor& parallel_for) {
  dispatch_dtype(params.dtype, [&](auto element) { write_norms<decltype(element)>(params, parallel_for); });
}

}  // namespace lighthouse

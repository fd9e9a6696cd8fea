#include <algorithm>
#include <array>
#include <cmath>
#include <vector>

#include "lighthouse/score.h"
#include "stages/row_sum.h"

namespace lighthouse {
namespace {

/// The tokens j = class_begin, class_begin + dilation, ... of one document.
struct ResidueClass {
  int64_t class_begin;
  int64_t document_end;
};

std::vector<ResidueClass> residue_classes(const GlaScoreParams& params) {
  const std::array<int64_t, 2> single = {0, params.seq_len};
  const std::span<const int64_t> bounds =
      params.cu_seqlens.empty() ? std::span<const int64_t>(single) : params.cu_seqlens;
  std::vector<ResidueClass> classes;
  for (size_t document = 0; document + 1 < bounds.size(); ++document) {
    const int64_t num_classes = std::min(params.dilation, bounds[document + 1] - bounds[document]);
    for (int64_t i = 0; i < num_classes; ++i) classes.push_back({bounds[document] + i, bounds[document + 1]});
  }
  return classes;
}

/// Simple gated linear attention of one head: only the state and the norm of the newest output are kept.
template <typename Real>
class GatedState {
 public:
  explicit GatedState(int64_t channels)
      : channels_(channels), state_(static_cast<size_t>(channels * channels)), output_(static_cast<size_t>(channels)) {}

  void clear() { std::fill(state_.begin(), state_.end(), Real{0}); }

  /// S = decay S + key value^T; returns ||query S|| / sqrt(D).
  float step(Real decay, const Real* query, const Real* key, const Real* value) {
    std::fill(output_.begin(), output_.end(), Real{0});
    Real* __restrict output = output_.data();
    for (int64_t i = 0; i < channels_; ++i) {
      Real* __restrict row = state_.data() + i * channels_;
      for (int64_t c = 0; c < channels_; ++c) {
        row[c] = decay * row[c] + key[i] * value[c];
        output[c] += query[i] * row[c];
      }
    }
    Real sum = 0;
    for (const Real x : output_) sum += x * x;
    return static_cast<float>(std::sqrt(sum / static_cast<Real>(channels_)));
  }

 private:
  int64_t channels_;
  std::vector<Real> state_;   // [D, D] by key and value channel
  std::vector<Real> output_;  // [D]
};

/// Token vectors of one head in the precision of the state.
template <typename T>
void widen(const T* source, Accumulator<T>* target, int64_t channels) {
  int64_t channel = 0;
  for (; channel + kLanes<T> <= channels; channel += kLanes<T>) store(target + channel, load(source + channel));
  if (channel < channels) {
    store_some(target + channel, load_some(source + channel, channels - channel), channels - channel);
  }
}

/// Both scores of one KV head over one residue class.
template <typename T>
class ClassScorer {
  using Real = Accumulator<T>;

 public:
  explicit ClassScorer(const GlaScoreParams& params)
      : params_(params),
        states_{GatedState<Real>(params.head_dim), GatedState<Real>(params.head_dim)},
        query_(static_cast<size_t>(params.head_dim)),
        key_(query_),
        value_(query_) {}

  void run(int64_t batch, int64_t kv_head, const ResidueClass& tokens) {
    const int64_t group = params_.num_heads / params_.num_kv_heads;
    const int64_t offset = (batch * params_.num_kv_heads + kv_head) * params_.seq_len;
    for (int64_t token = tokens.class_begin; token < tokens.document_end; token += params_.dilation) {
      params_.s_qk[offset + token] = params_.s_kq[offset + token] = NAN;
    }
    for (int64_t head = kv_head * group; head < (kv_head + 1) * group; ++head) {
      run_head(batch, head, kv_head, tokens, params_.s_qk + offset, params_.s_kq + offset);
    }
  }

 private:
  void run_head(int64_t batch, int64_t head, int64_t kv_head, const ResidueClass& tokens, float* s_qk, float* s_kq) {
    const auto q = head_rows<T>(params_.q, batch, head);
    const auto k = head_rows<T>(params_.k, batch, kv_head);
    const auto v = head_rows<T>(params_.v, batch, kv_head);
    const float* gate = params_.gate + batch * params_.gate_batch_stride + head * params_.gate_head_stride;
    for (auto& state : states_) state.clear();
    for (int64_t token = tokens.class_begin; token < tokens.document_end; token += params_.dilation) {
      widen(q[token], query_.data(), params_.head_dim);
      widen(k[token], key_.data(), params_.head_dim);
      widen(v[token], value_.data(), params_.head_dim);
      const Real decay = std::exp(static_cast<Real>(gate[token * params_.gate_seq_stride]));
      // fmax takes the number where the other is NaN.
      s_qk[token] = std::fmax(s_qk[token], states_[0].step(decay, query_.data(), key_.data(), value_.data()));
      s_kq[token] = std::fmax(s_kq[token], states_[1].step(decay, key_.data(), query_.data(), value_.data()));
    }
  }

  const GlaScoreParams& params_;
  std::array<GatedState<Real>, 2> states_;
  std::vector<Real> query_, key_, value_;
};

}  // namespace

void gla_scores(const GlaScoreParams& params, const ParallelFor& parallel_for) {
  const std::vector<ResidueClass> classes = residue_classes(params);
  const auto num_classes = static_cast<int64_t>(classes.size());
  dispatch_dtype(params.dtype, [&](auto element) {
    parallel_for(params.batch * params.num_kv_heads * num_classes, 1, [&](int64_t begin, int64_t end) {
      ClassScorer<decltype(element)> scorer(params);
      for (int64_t item = begin; item < end; ++item) {
        const int64_t head = item / num_classes;
        scorer.run(head / params.num_kv_heads, head % params.num_kv_heads, classes[item % num_classes]);
      }
    });
  });
}

}  // namespace lighthouse

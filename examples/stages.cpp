// The stages without torch: an attention of one's own between gather and scatter. One head, fp32, on one thread.
#include <lighthouse/gather.h>
#include <lighthouse/geometry.h>
#include <lighthouse/scatter.h>
#include <lighthouse/score.h>
#include <lighthouse/select.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <vector>

namespace {

constexpr int64_t kLength = 1024;
constexpr int64_t kDim = 16;
using Rows = std::vector<float>;  // [length, kDim]

/// A [1, length, 1, kDim] tensor.
lighthouse::View view(Rows& x) { return {x.data(), static_cast<int64_t>(x.size()), kDim, kDim}; }
lighthouse::ConstView view(const Rows& x) { return {x.data(), static_cast<int64_t>(x.size()), kDim, kDim}; }

Rows waves(float frequency) {
  Rows x(kLength * kDim);
  for (size_t i = 0; i < x.size(); ++i) x[i] = std::sin(frequency * static_cast<float>(i % 2039));
  return x;
}

std::vector<float> norms(const Rows& x) {
  std::vector<float> score(kLength);
  lighthouse::token_norms({.x = view(x),
                           .dtype = lighthouse::DType::kFloat32,
                           .batch = 1,
                           .seq_len = kLength,
                           .num_heads = 1,
                           .num_kv_heads = 1,
                           .head_dim = kDim,
                           .score = score.data(),
                           .score_batch_stride = kLength,
                           .score_head_stride = kLength,
                           .score_seq_stride = 1},
                          lighthouse::serial_for);
  return score;
}

/// Causal attention over `length` rows.
Rows attend(const Rows& q, const Rows& k, const Rows& v, int64_t length) {
  Rows out(q.size());
  for (int64_t i = 0; i < length; ++i) {
    float total = 0;
    for (int64_t j = 0; j <= i; ++j) {
      float product = 0;
      for (int64_t c = 0; c < kDim; ++c) product += q[i * kDim + c] * k[j * kDim + c];
      const float weight = std::exp(product / std::sqrt(float{kDim}));
      total += weight;
      for (int64_t c = 0; c < kDim; ++c) out[i * kDim + c] += weight * v[j * kDim + c];
    }
    for (int64_t c = 0; c < kDim; ++c) out[i * kDim + c] /= total;
  }
  return out;
}

}  // namespace

int main() {
  const Rows q = waves(0.3F), k = waves(0.7F), v = waves(1.1F);
  const lighthouse::SequencePlan plan =
      lighthouse::make_plan({.num_levels = 3, .pooling_factor = 4, .topk = 16}, kLength);

  std::vector<int32_t> selection(plan.gathered_len);
  std::vector<int32_t> slots(plan.num_slots);
  const std::vector<float> s_qk = norms(q), s_kq = norms(k);
  lighthouse::select_entries({.s_qk = s_qk.data(),
                              .s_kq = s_kq.data(),
                              .plan = &plan,
                              .batch = 1,
                              .num_kv_heads = 1,
                              .selection = selection.data(),
                              .slots = slots.data()},
                             lighthouse::serial_for);

  Rows q_rows(plan.gathered_len * kDim), k_rows(q_rows), v_rows(q_rows);
  lighthouse::gather_rows({.q = view(q),
                           .k = view(k),
                           .v = view(v),
                           .q_rows = view(q_rows),
                           .k_rows = view(k_rows),
                           .v_rows = view(v_rows),
                           .selection = selection.data(),
                           .plan = &plan,
                           .dtype = lighthouse::DType::kFloat32,
                           .batch = 1,
                           .num_heads = 1,
                           .num_kv_heads = 1,
                           .head_dim = kDim},
                          lighthouse::serial_for);

  const Rows rows = attend(q_rows, k_rows, v_rows, plan.gathered_len);
  Rows out(kLength * kDim);
  lighthouse::scatter_rows({.rows = view(rows),
                            .out = view(out),
                            .slots = slots.data(),
                            .plan = &plan,
                            .dtype = lighthouse::DType::kFloat32,
                            .batch = 1,
                            .num_heads = 1,
                            .num_kv_heads = 1,
                            .head_dim = kDim},
                           lighthouse::serial_for);

  float largest = 0;
  for (const float x : out) largest = std::fmax(largest, std::fabs(x));
  std::printf("%ld tokens, %ld rows attended to, outputs up to %.3f\n", static_cast<long>(kLength),
              static_cast<long>(plan.gathered_len), static_cast<double>(largest));
}

#include "bench/stage_bytes.h"

namespace lighthouse::bench {
namespace {

/// Tokens that gather has to read where the coarsest means are there, over all batches and KV heads. Windows nest: they
/// are those of the entries one level below the coarsest.
int64_t expanded_tokens(const at::Tensor& selection, const Pyramid& pyramid) {
  const at::Tensor on_host = selection.cpu().contiguous();
  const auto* entries = on_host.const_data_ptr<int32_t>();
  int64_t tokens = 0;
  for (int64_t i = 0; i < on_host.numel(); ++i) {
    const Entry entry = entry_at(pyramid, entries[i]);
    if (entry.level != pyramid.num_levels - 2) continue;
    const TokenRange window = entry_window(pyramid, entry);
    tokens += window.end - window.begin;
  }
  return tokens;
}

}  // namespace

StageBytes stage_bytes(const Inputs& inputs, const at::Tensor& selection, const SelectionConfig& config) {
  const Pyramid pyramid{inputs.q.size(1), static_cast<int>(config.num_levels), config.log2_pool()};
  const auto batch = static_cast<double>(inputs.q.size(0));
  const auto seq_len = static_cast<double>(pyramid.seq_len);
  const auto num_heads = static_cast<double>(inputs.q.size(2));
  const auto num_kv_heads = static_cast<double>(inputs.k.size(2));
  const double channels = static_cast<double>(inputs.q.size(3)) * static_cast<double>(inputs.q.element_size());
  const auto num_slots = static_cast<double>(pyramid.slot_offset(pyramid.num_levels));
  constexpr double kIndexBytes = sizeof(int32_t);
  constexpr double kScoreBytes = sizeof(float);

  const double q_token = batch * num_heads * channels;
  const double token = q_token + 2 * batch * num_kv_heads * channels;  // of q, k and v
  const double rows = static_cast<double>(selection.size(2));
  const double coarse = token * static_cast<double>(pyramid.num_coarse());
  const double maxima = batch * (num_slots - seq_len) * kScoreBytes;  // of one head
  const double selected = static_cast<double>(selection.numel()) * kIndexBytes;
  const double slots = batch * num_kv_heads * num_slots * kIndexBytes;
  const double scores = 2 * batch * num_kv_heads * seq_len * kScoreBytes;
  const double expanded = static_cast<double>(expanded_tokens(selection, pyramid)) * token / (batch * num_kv_heads);

  StageBytes bytes{};
  bytes.pool_and_score = token * seq_len + coarse + (num_heads + num_kv_heads) * maxima;
  bytes.pool_scores = scores + 2 * num_kv_heads * maxima;
  bytes.select = (num_heads + num_kv_heads) * maxima + selected + slots;
  bytes.select_by_group = 2 * num_kv_heads * maxima + selected + slots;
  bytes.gather = token * seq_len + selected + token * rows;
  bytes.gather_with_means = expanded + coarse + selected + token * rows;
  bytes.scatter = q_token * rows + slots + q_token * seq_len;
  bytes.scatter_backward = q_token * seq_len + selected + q_token * rows;
  bytes.gather_backward = token * rows + slots + token * seq_len;
  bytes.dilated_norms = 2 * (q_token + batch * num_heads * kScoreBytes) * seq_len;
  bytes.gla = 2 * (token + batch * num_heads * kScoreBytes) * seq_len + scores;
  return bytes;
}

}  // namespace lighthouse::bench

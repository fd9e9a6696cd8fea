// What far context is worth: the same targets once more, each from a window that holds little more than C tokens.
#include <algorithm>

#include "eval/tasks.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

/// Window number w holds tokens [begin, begin + length) with begin = 1 + w stride, and its last `stride` targets
/// count: they see C to C + stride - 1 tokens. The last window ends with the sequence, and fewer count there.
struct Windows {
  int64_t context, stride, seq_len;

  int64_t length() const { return context - 1 + stride; }
  /// First token whose target counts, and one past the last, of the window that counts from `first`.
  int64_t begin(int64_t first) const { return std::min(first + 1 - context, seq_len - length()); }
};

Sequence cut(const Sequence& sequence, int64_t begin, int64_t length) {
  Sequence part;
  part.inputs.assign(sequence.inputs.begin() + begin, sequence.inputs.begin() + begin + length);
  part.targets.assign(sequence.targets.begin() + begin, sequence.targets.begin() + begin + length);
  for (const int64_t offset : sequence.cu_seqlens) {
    const int64_t moved = std::clamp<int64_t>(offset - begin, 0, length);
    if (part.cu_seqlens.empty() || part.cu_seqlens.back() != moved) part.cu_seqlens.push_back(moved);
  }
  return part;
}

/// Losses [N] of a sequence with little context; of targets before token C, which have none to lose, 0.
std::vector<float> limited_losses(const Decoder& decoder, const Sequence& sequence, const Windows& windows) {
  std::vector<float> nats(sequence.inputs.size());
  const int64_t per_batch = sequence.cu_seqlens.empty() ? std::max<int64_t>(kBatchTokens / windows.length(), 1) : 1;
  for (int64_t first = windows.context; first < windows.seq_len;) {
    std::vector<Sequence> batch;
    const int64_t batch_first = first;
    for (; first < windows.seq_len && static_cast<int64_t>(batch.size()) < per_batch; first += windows.stride) {
      batch.push_back(cut(sequence, windows.begin(first), windows.length()));
    }
    const std::vector<float> losses = token_losses(decoder, batch, AttentionMode::kDense);
    for (int64_t token = batch_first; token < std::min(first, windows.seq_len); ++token) {
      const int64_t window = (token - batch_first) / windows.stride;
      const int64_t begin = windows.begin(batch_first + window * windows.stride);
      nats[static_cast<size_t>(token)] = losses[static_cast<size_t>(window * windows.length() + token - begin)];
    }
  }
  return nats;
}

}  // namespace

nlohmann::ordered_json measure_context(Evaluation& evaluation) {
  const std::vector<SequenceLosses>& sequences = evaluation.losses(AttentionMode::kDense);
  const auto seq_len = static_cast<int64_t>(sequences.front().nats.size());
  const int64_t context = evaluation.settings().context;
  LIGHTHOUSE_CHECK(context >= 1 && context < seq_len, "--context ", context,
                   ": must be at least 1 and less than the sequence length, ", seq_len);
  const Windows windows{context, std::min(std::max<int64_t>(context / 4, 1), seq_len - context), seq_len};

  std::vector<PartialSum> full, limited, difference;
  for (const SequenceLosses& losses : sequences) {
    const Sequence sequence = evaluation.loader().validation_sequence(losses.index);
    const SequenceLosses near{losses.index, limited_losses(evaluation.decoder(), sequence, windows), losses.positions};
    full.push_back(losses.part(context, seq_len));
    limited.push_back(near.part(context, seq_len));
    difference.push_back({limited.back().sum - full.back().sum, full.back().count});
  }
  const Mean mean = mean_of(difference);
  return {{"length", context},
          {"longest", context + windows.stride - 1},
          {"full", finite(mean_of(full).value)},
          {"limited", finite(mean_of(limited).value)},
          {"difference", finite(mean.value)},
          {"standard_error", finite(mean.standard_error)},
          {"targets", mean.count}};
}

}  // namespace lighthouse

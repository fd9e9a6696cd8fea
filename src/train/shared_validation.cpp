#include "train/shared_validation.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/tensor.h>

#include <algorithm>
#include <vector>

#include "eval/sample.h"
#include "eval/statistics.h"
#include "eval/validation.h"
#include "model/batch.h"

namespace lighthouse {
namespace {

/// What the ranks have of one sequence each, or of none, and a signal that a rank has received.
struct Round {
  std::vector<PartialSum> parts;  ///< [ranks]
  int stop_signal = 0;
};

Round exchange_round(const PartialSum& own, int stop_signal, at::Device device, const Mesh& mesh) {
  const at::Tensor mine = at::tensor({own.sum, static_cast<double>(own.count), static_cast<double>(stop_signal)},
                                     at::TensorOptions(at::kDouble))
                              .to(device);
  const at::Tensor host = mesh.all().to_host(mesh.all().of_ranks(mine, "validation losses"));
  const auto of_ranks = host.accessor<double, 2>();
  Round round;
  for (int64_t rank = 0; rank < mesh.size(); ++rank) {
    const auto shown = of_ranks[rank];
    round.parts.push_back({shown[0], static_cast<int64_t>(shown[1])});
    if (round.stop_signal == 0) round.stop_signal = static_cast<int>(shown[2]);
  }
  return round;
}

/// What this rank's tokens of a sequence add.
PartialSum shared_part(const Decoder& decoder, const Sequence& sequence, AttentionMode mode, const Mesh& mesh) {
  const Batch whole = make_host_batch({&sequence, 1});
  const auto seq_len = static_cast<int64_t>(sequence.inputs.size());
  const std::vector<Span> spans = decoder.token_spans(seq_len, sequence.cu_seqlens, mesh.context_size());
  const Batch batch = to_device(share_of(whole, spans, mesh.context_rank()), decoder.device());
  const at::Tensor losses =
      decoder.token_losses(batch.tokens, batch.targets, mode, batch.cu_seqlens, RowShare{spans, &mesh.context()});
  return {losses.sum(at::kDouble).item<double>(), batch.num_targets};
}

PartialSum own_part(const Decoder& decoder, const SequenceLoader& loader, int64_t index, AttentionMode mode,
                    const Mesh& mesh) {
  if (mesh.context_size() == 1) return validation_parts(decoder, loader, {&index, 1}, mode).front();
  return shared_part(decoder, loader.validation_sequence(index), mode, mesh);
}

/// The mean of each source's sequences; `parts` are those of `sample`.
std::vector<std::optional<double>> source_losses(const std::vector<PartialSum>& parts,
                                                 const std::vector<int64_t>& sample, const SequenceLoader& loader) {
  std::vector<std::optional<double>> losses;
  for (size_t source = 0; source < loader.sources().size(); ++source) {
    std::vector<PartialSum> own;
    for (size_t i = 0; i < sample.size(); ++i) {
      if (loader.validation_source_of(sample[i]) == source) own.push_back(parts[i]);
    }
    const ValidationLoss mean = loss_of(own);
    losses.push_back(mean.num_targets == 0 ? std::nullopt : std::optional(mean.loss));
  }
  return losses;
}

}  // namespace

ValidationLosses shared_validation_losses(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                                          AttentionMode mode, const Mesh& mesh,
                                          const std::function<int(int64_t read)>& received) {
  const std::vector<int64_t> sample = validation_sample(loader, num_sequences, kSampleSeed);
  const auto count = static_cast<int64_t>(sample.size());
  std::vector<PartialSum> parts(sample.size());
  for (int64_t first = 0; first < count; first += mesh.data_size()) {  // each group has one of these
    const int64_t end = std::min(first + mesh.data_size(), count), mine = first + mesh.data_rank();
    PartialSum own;
    if (mine < end) own = own_part(decoder, loader, sample[static_cast<size_t>(mine)], mode, mesh);
    const Round round = exchange_round(own, received(end), decoder.device(), mesh);
    for (int64_t i = first; i < end; ++i) {
      for (int64_t sharer = 0; sharer < mesh.context_size(); ++sharer) {
        const PartialSum& shared = round.parts[static_cast<size_t>(mesh.rank_of(i, sharer))];
        parts[static_cast<size_t>(i)].sum += shared.sum;
        parts[static_cast<size_t>(i)].count += shared.count;
      }
    }
    if (round.stop_signal != 0 && end < count) return {round.stop_signal, 0, {}};
  }
  return {0, loss_of(parts).loss, source_losses(parts, sample, loader)};
}

}  // namespace lighthouse

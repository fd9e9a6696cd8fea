#include "train/shared_validation.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/tensor.h>

#include <vector>

#include "eval/sample.h"
#include "eval/statistics.h"
#include "eval/validation.h"
#include "model/batch.h"

namespace lighthouse {
namespace {

/// The parts of all sequences, of which this rank has its `own`.
std::vector<PartialSum> all_parts(const std::vector<PartialSum>& own, int64_t num_sequences, at::Device device,
                                  const Mesh& mesh) {
  const int64_t most = mesh.most_of(num_sequences);
  std::vector<double> values(static_cast<size_t>(2 * most), 0);  // sum and count of each
  for (size_t i = 0; i < own.size(); ++i) {
    values[2 * i] = own[i].sum;
    values[2 * i + 1] = static_cast<double>(own[i].count);
  }
  const at::Tensor mine = at::tensor(values, at::kDouble).to(device);
  const at::Tensor all = at::empty({mesh.size(), most, 2}, mine.options());
  mesh.all().all_gather(all, mine, "validation losses").wait();
  const at::Tensor host = mesh.all().to_host(all);
  const auto of_ranks = host.accessor<double, 3>();
  std::vector<PartialSum> parts(static_cast<size_t>(num_sequences));
  for (int64_t i = 0; i < num_sequences; ++i) {
    PartialSum& part = parts[static_cast<size_t>(i)];
    for (int64_t sharer = 0; sharer < mesh.context_size(); ++sharer) {
      const auto shared = of_ranks[mesh.rank_of(i, sharer)][mesh.place_of(i)];
      part.sum += shared[0];
      part.count += static_cast<int64_t>(shared[1]);
    }
  }
  return parts;
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

std::vector<PartialSum> own_parts(const Decoder& decoder, const SequenceLoader& loader,
                                  const std::vector<int64_t>& sequences, AttentionMode mode, const Mesh& mesh) {
  if (mesh.context_size() == 1) return validation_parts(decoder, loader, sequences, mode);
  std::vector<PartialSum> parts;
  for (const int64_t index : sequences) {
    parts.push_back(shared_part(decoder, loader.validation_sequence(index), mode, mesh));
  }
  return parts;
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
                                          AttentionMode mode, const Mesh& mesh) {
  const std::vector<int64_t> sample = validation_sample(loader, num_sequences, kSampleSeed);
  std::vector<int64_t> own;
  for (size_t i = 0; i < sample.size(); ++i) {
    if (mesh.has(static_cast<int64_t>(i))) own.push_back(sample[i]);
  }
  const std::vector<PartialSum> parts = all_parts(own_parts(decoder, loader, own, mode, mesh),
                                                  static_cast<int64_t>(sample.size()), decoder.device(), mesh);
  return {loss_of(parts).loss, source_losses(parts, sample, loader)};
}

}  // namespace lighthouse

#include "train/shared_validation.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/zeros.h>

#include <vector>

#include "eval/sample.h"
#include "eval/statistics.h"
#include "eval/validation.h"
#include "model/batch.h"

namespace lighthouse {
namespace {

/// The parts of all sequences, of which this process has every data_size-th.
std::vector<PartialSum> all_parts(const std::vector<PartialSum>& own, int64_t num_sequences, at::Device device,
                                  const Mesh& mesh) {
  const int64_t most = (num_sequences + mesh.data_size() - 1) / mesh.data_size();
  const at::Tensor mine = at::zeros({most, 2}, at::kDouble);
  for (size_t i = 0; i < own.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    mine[row][0].fill_(own[i].sum);
    mine[row][1].fill_(own[i].count);
  }
  const at::Tensor all = at::empty({mesh.size(), most, 2}, mine.options().device(device));
  mesh.all().all_gather(all, mine.to(device), "validation losses").wait();
  const at::Tensor host = all.to(at::kCPU);
  std::vector<PartialSum> parts(static_cast<size_t>(num_sequences));
  for (int64_t i = 0; i < num_sequences; ++i) {
    for (int64_t sharer = 0; sharer < mesh.context_size(); ++sharer) {
      const at::Tensor part = host[i % mesh.data_size() * mesh.context_size() + sharer][i / mesh.data_size()];
      parts[static_cast<size_t>(i)].sum += part[0].item<double>();
      parts[static_cast<size_t>(i)].count += static_cast<int64_t>(part[1].item<double>());
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

}  // namespace

double shared_validation_loss(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                              AttentionMode mode, const Mesh& mesh) {
  const std::vector<int64_t> sample = validation_sample(loader, num_sequences, kSampleSeed);
  std::vector<int64_t> own;
  for (size_t i = 0; i < sample.size(); ++i) {
    if (static_cast<int64_t>(i) % mesh.data_size() == mesh.data_rank()) own.push_back(sample[i]);
  }
  const std::vector<PartialSum> parts = own_parts(decoder, loader, own, mode, mesh);
  return loss_of(all_parts(parts, static_cast<int64_t>(sample.size()), decoder.device(), mesh)).loss;
}

}  // namespace lighthouse

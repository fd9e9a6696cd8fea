#include "eval/evaluation.h"

#include <cmath>

#include "eval/sample.h"
#include "lighthouse/check.h"
#include "model/random.h"

namespace lighthouse {

Evaluation::Evaluation(const Decoder& decoder, const SequenceLoader* loader, EvalSettings settings)
    : decoder_(decoder), loader_(loader), settings_(std::move(settings)) {}

const SequenceLoader& Evaluation::loader() const {
  LIGHTHOUSE_CHECK(loader_ != nullptr, "eval: this task reads a corpus and none was given");
  return *loader_;
}

const std::vector<SequenceLosses>& Evaluation::losses(AttentionMode mode) {
  auto& losses = losses_[mode];
  if (!losses.empty()) return losses;
  for (const int64_t index : validation_sample(loader(), settings_.sequences, settings_.seed)) {
    losses.push_back(sequence_losses(decoder_, *loader_, index, mode));
  }
  return losses;
}

Filler Evaluation::filler() const {
  if (!settings_.corpus_filler) return sentences_filler();
  return [&text = loader()](int64_t bytes, uint64_t stream) {
    const int64_t available = text.num_validation_sequences();
    LIGHTHOUSE_CHECK(available >= 1, "eval: the corpus has no validation sequences to fill prompts with");
    auto index = static_cast<int64_t>(random_bits(stream, 0) % static_cast<uint64_t>(available));
    std::string filler;
    for (; static_cast<int64_t>(filler.size()) < bytes; index = (index + 1) % available) {
      for (const int64_t token : text.validation_sequence(index).inputs) filler += static_cast<char>(token);
    }
    filler.resize(static_cast<size_t>(bytes));
    return filler;
  };
}

nlohmann::ordered_json Evaluation::loss_json(const Mean& mean) const {
  const double bits = mean.value / std::log(2.0);
  return {{"loss", finite(mean.value)},
          {"bits_per_byte", reads_bytes(decoder_.config()) ? finite(bits) : nlohmann::ordered_json()},
          {"standard_error", finite(mean.standard_error)},
          {"targets", mean.count}};
}

bool reads_bytes(const ModelConfig& model) { return model.vocab_size == 256; }

const char* mode_name(AttentionMode mode) { return mode == AttentionMode::kDense ? "dense" : "lighthouse"; }

}  // namespace lighthouse

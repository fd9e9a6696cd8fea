#include "eval/evaluation.h"

#include <algorithm>
#include <cmath>

#include "eval/prompt_tokens.h"
#include "eval/sample.h"
#include "lighthouse/check.h"
#include "model/random.h"

namespace lighthouse {
namespace {

/// The first `bytes` bytes of UTF-8, a character that is cut there being spaces.
std::string whole_characters(std::string text, int64_t bytes) {
  const auto size = static_cast<size_t>(bytes);
  size_t end = std::min(size, text.size());
  while (end > 0 && end < text.size() && (static_cast<unsigned char>(text[end]) & 0xC0) == 0x80) --end;
  text.resize(end);
  text.resize(size, ' ');
  return text;
}

}  // namespace

Evaluation::Evaluation(const Decoder& decoder, const SequenceLoader* loader, EvalSettings settings,
                       Tokenizer* tokenizer)
    : decoder_(decoder), loader_(loader), settings_(std::move(settings)), tokenizer_(tokenizer) {}

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
  return [&text = loader(), tokenizer = tokenizer_](int64_t bytes, uint64_t stream) {
    const int64_t available = text.num_validation_sequences();
    LIGHTHOUSE_CHECK(available >= 1, "eval: the corpus has no validation sequences to fill prompts with");
    auto index = static_cast<int64_t>(random_bits(stream, 0) % static_cast<uint64_t>(available));
    std::string filler;
    for (; static_cast<int64_t>(filler.size()) < bytes; index = (index + 1) % available) {
      const std::vector<int64_t> tokens = text.validation_sequence(index).inputs;
      if (tokenizer != nullptr) {
        filler += tokenizer->decode(tokens);
      } else {
        for (const int64_t token : tokens) filler += static_cast<char>(token);
      }
    }
    return tokenizer == nullptr ? filler.substr(0, static_cast<size_t>(bytes)) : whole_characters(filler, bytes);
  };
}

std::optional<double> Evaluation::bytes_per_token() {
  if (tokenizer_ == nullptr && reads_bytes(decoder_.config())) return 1;
  if (tokenizer_ == nullptr || loader_ == nullptr) return {};
  if (!bytes_per_token_) {
    PartialSum all;
    for (const int64_t index : validation_sample(*loader_, settings_.sequences, settings_.seed)) {
      std::vector<int64_t> targets = loader_->validation_sequence(index).targets;
      std::erase(targets, kIgnoredTarget);
      all.count += static_cast<int64_t>(targets.size());
      all.sum += static_cast<double>(text_bytes(*tokenizer_, std::move(targets)));
    }
    bytes_per_token_ = all.sum > 0 ? std::optional(all.sum / static_cast<double>(all.count)) : std::optional<double>();
  }
  return *bytes_per_token_;
}

nlohmann::ordered_json Evaluation::loss_json(const Mean& mean) {
  const double bits = mean.value / std::log(2.0);
  const std::optional<double> bytes = bytes_per_token();
  return {{"loss", finite(mean.value)},
          {"bits_per_byte", bytes ? finite(bits / *bytes) : nlohmann::ordered_json()},
          {"standard_error", finite(mean.standard_error)},
          {"targets", mean.count}};
}

bool reads_bytes(const ModelConfig& model) { return model.vocab_size == 256; }

const char* mode_name(AttentionMode mode) { return mode == AttentionMode::kDense ? "dense" : "lighthouse"; }

}  // namespace lighthouse

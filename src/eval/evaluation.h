// What the tasks of `lighthouse eval` measure, and on what.
#pragma once

#include <cstdint>
#include <map>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "data/sequence_loader.h"
#include "data/tokenizer.h"
#include "eval/prompts.h"
#include "eval/sequence_losses.h"
#include "model/decoder.h"

namespace lighthouse {

struct EvalSettings {
  std::vector<AttentionMode> modes = {AttentionMode::kDense};  ///< of loss and position; all else is dense
  int64_t sequences = 64;                                      ///< of the held-out text, at most
  int64_t context = 0;                                         ///< C of the task context
  std::vector<int64_t> lengths;                                ///< of synthetic prompts, in tokens
  std::vector<double> depths;                                  ///< where the needle lies, from 0, the beginning, to 1
  std::optional<int64_t> trials;  ///< prompts of each length; empty: as many as the task is used to
  int64_t keys = 4;               ///< needles of multikey
  bool corpus_filler = false;     ///< prompts are filled with held-out text instead of sentences
  uint64_t seed = 1;              ///< of the sample of sequences, and of the prompts
};

/// A model, held-out text and settings. Losses that several tasks need are measured once.
class Evaluation {
 public:
  /// `loader` may be null where no task reads the corpus, `tokenizer` where tokens are bytes or nobody knows their
  /// text. All of them outlive this.
  Evaluation(const Decoder& decoder, const SequenceLoader* loader, EvalSettings settings,
             Tokenizer* tokenizer = nullptr);

  const Decoder& decoder() const { return decoder_; }
  const SequenceLoader& loader() const;
  const EvalSettings& settings() const { return settings_; }
  Tokenizer* tokenizer() const { return tokenizer_; }
  const char* prompt_unit() const { return tokenizer_ == nullptr ? "bytes" : "tokens"; }  ///< of lengths
  /// Of text in the targets of the sample of validation sequences: 1 where tokens are bytes; nullopt where it is not
  /// known.
  std::optional<double> bytes_per_token();
  /// Of the sample of validation sequences, in its order.
  const std::vector<SequenceLosses>& losses(AttentionMode mode);
  Filler filler() const;  ///< as settings().corpus_filler asks
  /// {"loss", "bits_per_byte", "standard_error", "targets"}; null where a number is not finite or not known.
  nlohmann::ordered_json loss_json(const Mean& mean);

 private:
  const Decoder& decoder_;
  const SequenceLoader* loader_;
  EvalSettings settings_;
  Tokenizer* tokenizer_;
  std::optional<std::optional<double>> bytes_per_token_;  ///< once it was asked for
  std::map<AttentionMode, std::vector<SequenceLosses>> losses_;
};

/// Whether the tokens of a model are bytes: then its vocabulary has 256.
bool reads_bytes(const ModelConfig& model);

/// "dense", "lighthouse"
const char* mode_name(AttentionMode mode);

/// Tokens of a batch of independent sequences: enough for a GPU, little beside what a training step takes.
inline constexpr int64_t kBatchTokens = int64_t{1} << 16;

}  // namespace lighthouse

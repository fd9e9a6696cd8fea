#include "train/run_texts.h"

#include <cmath>
#include <optional>

#include "config/schema.h"
#include "io/printable.h"
#include "lighthouse/check.h"
#include "lighthouse/geometry.h"
#include "train/stop_signal.h"
#include "train/text.h"

namespace lighthouse {
namespace {

std::string begin_text(const TrainingConfig& training, int64_t step) {
  if (step == 0 && !training.initial_weights.empty()) {
    return "; weights from " + printable_name(training.initial_weights) +
           (training.initial_rope == InitialRope::kChanged ? ", RoPE changed" : "");
  }
  if (step == training.steps) return "; all steps are done already: give more, or another logging.run_dir";
  return step > 0 ? detail::concat("; resumed at step ", step) : "";
}

/// What the steps of stage one are like: "with Lighthouse attention".
std::string stage_one_text(const AttentionConfig& attention) {
  if (attention.method == AttentionMethod::kShort) return detail::concat("dense in sequences of ", attention.span);
  if (attention.method == AttentionMethod::kWindow) return detail::concat("with a window of ", attention.span);
  const size_t windows = attention.window_layers.size();
  return windows == 0 ? "with Lighthouse attention"
                      : detail::concat("with Lighthouse attention and, in ", windows,
                                       windows == 1 ? " layer" : " layers", ", a window of ", attention.span);
}

std::string done_text(const TrainResult& result) {
  const std::string dense = result.validation ? ", dense validation loss " + fixed(result.validation->dense, 4) : "";
  return detail::concat("done: ", result.step, " steps, ", with_unit(static_cast<double>(result.tokens)), " tokens in ",
                        duration(result.seconds), " (steps alone ", duration(result.train_seconds), "); training loss ",
                        fixed(result.loss.value_or(NAN), 4), dense);
}

std::string switch_text(const TrainResult& result, const RunConfig& config) {
  std::optional<double> gap;
  if (result.switch_report.validation_jump && result.validation && result.validation->lighthouse) {
    gap = *result.validation->lighthouse - result.validation->dense;
  }
  return summary(result.switch_report, config.training.lighthouse_steps, gap, has_lighthouse_stage(config));
}

/// Whether stage one selects nothing, as every Lighthouse layer keeps every token (algorithm.md, section (iii)).
bool keeps_every_token(const RunConfig& config) {
  if (!has_lighthouse_stage(config)) return false;
  const AttentionConfig& attention = config.attention;
  const int64_t seq_len = config.training.seq_len;
  for (int64_t layer = 0; layer < config.model.num_layers; ++layer) {
    const auto topk = lighthouse_topk(attention, layer);
    if (!topk) continue;
    const SelectionConfig selection{attention.num_levels, attention.pooling_factor, *topk, attention.tile_topk,
                                    attention.cover_prefix};
    if (gathered_length(seq_len, selection) < seq_len) return false;
  }
  return true;
}

}  // namespace

std::string selection_warning(const RunConfig& config) {
  if (!keeps_every_token(config)) return "";
  return detail::concat("attention.topk keeps all ", config.training.seq_len,
                        " tokens of a sequence, so that both stages attend to all of them; give less than "
                        "training.seq_len, a 64th of it is usual");
}

std::vector<std::string> opening_lines(const RunConfig& config, const SequenceLoader& loader,
                                       const Environment& environment, const std::filesystem::path& run_dir,
                                       int64_t step) {
  const TrainingConfig& training = config.training;
  return {detail::concat("model: ", with_unit(static_cast<double>(num_parameters(config.model))), " parameters; data: ",
                         with_unit(static_cast<double>(loader.num_training_tokens())), " tokens to train on, ",
                         loader.num_validation_sequences(), " sequences of ", training.seq_len, " for validation; ",
                         environment.device, ", ", environment.threads, " threads, ", training.precision),
          detail::concat("run folder ", printable_name(run_dir.string()), ": ", training.steps, " steps, ",
                         training.lighthouse_steps, " ", stage_one_text(config.attention), ", then ",
                         training.steps - training.lighthouse_steps, " dense", begin_text(training, step))};
}

std::vector<std::string> closing_lines(const RunConfig& config, const TrainResult& result, int stop_signal) {
  if (!result.complete && result.step == 0) {
    return {detail::concat("stopped by ", StopSignals::name(stop_signal), kNothingToSave)};
  }
  if (!result.complete) {
    return {detail::concat("stopped by ", StopSignals::name(stop_signal), " after step ", result.step,
                           ", which is saved; the same command goes on from there")};
  }
  std::vector<std::string> lines = {done_text(result)};
  const std::string switched = switch_text(result, config);
  if (!switched.empty()) lines.push_back(switched);
  if (result.num_spikes > 0) {
    lines.push_back(detail::concat(result.num_spikes,
                                   " steps stood out by their loss or gradient norm (spike in metrics.jsonl); many of "
                                   "them ask for a longer optimizer.warmup_steps or a lower optimizer.learning_rate"));
  }
  return lines;
}

std::string divergence_text(const StepRecord& record, int64_t skipped_in_row) {
  return detail::concat("training stopped: ", skipped_in_row, " steps in a row were not finite (step ", record.step,
                        ": ", record.skipped,
                        "); none of them reached the weights. Try a lower optimizer.learning_rate, a longer "
                        "optimizer.warmup_steps, optimizer.clip_norm = 1, or training.precision = \"fp32\", in a new "
                        "logging.run_dir");
}

}  // namespace lighthouse

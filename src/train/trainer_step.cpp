// One step of a Trainer.
#include <ATen/TensorOperators.h>
#include <ATen/ops/full_like.h>

#include <algorithm>
#include <cmath>
#include <exception>
#include <optional>

#include "config/schema.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "parallel/watch.h"
#include "parallel/world.h"
#include "train/gradient_sum.h"
#include "train/stop_signal.h"
#include "train/text.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {

AttentionMode attention_mode(Stage stage) {
  return stage == Stage::kLighthouse ? AttentionMode::kLighthouse : AttentionMode::kDense;
}

/// Of each corpus of a mixture: the loss on what the step has read of it, and how often it was read by now.
std::vector<SourceRecord> source_records(const SequenceLoader& loader, const std::vector<BatchLoss>& batches,
                                         int64_t first_sequence, int64_t batch_size) {
  const std::vector<std::string> names = loader.sources();
  std::vector<BatchLoss> sums(names.size());
  int64_t sequence = first_sequence;
  for (const BatchLoss& batch : batches) {
    BatchLoss& sum = sums[loader.source_of(sequence)];
    sum.loss += batch.loss;
    sum.weight += batch.weight;
    sequence += batch_size;
  }
  std::vector<SourceRecord> records;
  for (size_t source = 0; source < names.size(); ++source) {
    const auto& [loss, weight] = sums[source];
    records.push_back({names[source], weight > 0 ? std::optional(loss / weight) : std::nullopt,
                       loader.epochs(source, sequence), std::nullopt, std::nullopt});
  }
  return records;
}

}  // namespace

StepRecord Trainer::step() {
  if (World* world = mesh_.world()) world->watch().set_place("step " + std::to_string(state_.step + 1));
  meter_.begin(state_.step + 1);

  // 1. Stage and learning rate follow from the step.
  StepRecord record;
  record.step = state_.step + 1;
  record.stage = stage_at(config_.training, state_.step);
  record.learning_rate = learning_rate_at(config_.optimizer, config_.training.steps, state_.step);

  // 2. Gradients of the mean loss over the step's sequences. They are summed over ranks as backward completes them.
  int64_t num_targets = 0;
  const std::vector<Batch> batches = take_batches(num_targets);
  enter_part(Part::kOther);
  GradientReduction sums(*gradients_);
  const std::vector<at::Tensor> losses = accumulate_gradients(batches, num_targets, attention_mode(record.stage), sums);
  if (options_.on_gradients) options_.on_gradients(state_.step, decoder_.parameters());

  // 3. What is not finite goes no further than this.
  enter_part(Part::kOptimizer);
  const StepTotals totals = reduce_gradients(losses, sums);
  record.loss = totals.loss;
  record.gradient_norm = totals.gradient_norm;
  if (!totals.batches.empty()) {
    record.sources = source_records(loader_, totals.batches, state_.next_sequence, config_.training.batch_size);
  }
  record.skipped = what_is_not_finite(totals);
  record.ranks = standing_out(totals.loads);

  // 4. The update.
  if (record.skipped.empty()) apply_gradients(record);
  clear_gradients(decoder_.parameters());

  // 5. The state is that after the step.
  state_.step = record.step;
  state_.next_sequence += sequences_per_step(config_.training);
  state_.tokens += tokens_per_step(config_.training);
  state_.skipped_in_row = record.skipped.empty() ? 0 : state_.skipped_in_row + 1;
  if (std::isfinite(record.loss)) {
    report_switch(record, state_.switch_tracker.add_loss(record.step, record.loss));
  }
  if (record.skipped.empty()) {
    record.spike = state_.spike_detector.add(record.stage, record.loss, record.gradient_norm);
  }

  // 6. What the logs say of it.
  meter_.end(record);
  state_.train_seconds += record.step_seconds;
  state_.seconds = seconds_before_ + session_seconds();
  record.tokens = state_.tokens;
  record.seconds = state_.seconds;
  record.train_seconds = state_.train_seconds;
  return record;
}

/// This rank's. Where a rank has none all end alike, so that they can save what they have.
std::vector<Batch> Trainer::take_batches(int64_t& num_targets) {
  std::vector<Batch> batches;
  std::exception_ptr error;
  try {
    batches = prefetcher_.take(state_.next_sequence);
  } catch (...) {
    error = std::current_exception();
  }
  int64_t own_targets = 0;
  for (const Batch& batch : batches) own_targets += batch.num_targets;
  const StepStart start = exchange_->start(own_targets, error != nullptr);
  all_failed_ = !start.failed.empty();
  if (error) std::rethrow_exception(error);
  if (!start.failed.empty()) {
    throw DamagedFile(detail::concat("rank ", start.failed.front(), " cannot read its sequences of step ",
                                     state_.step + 1, ", and says why"));
  }
  num_targets = start.num_targets;
  return batches;
}

/// What each batch adds to the loss of the step, as StepExchange::end takes it.
std::vector<at::Tensor> Trainer::accumulate_gradients(const std::vector<Batch>& batches, int64_t num_targets,
                                                      AttentionMode mode, GradientReduction& sums) {
  const bool one_by_one = !config_.data.mixture.empty();
  const size_t per_batch = one_by_one ? 2 : 1;
  std::vector<at::Tensor> losses(batches.size() * per_batch);
  const auto backward = [&](int64_t index) {
    const Batch& batch = batches[static_cast<size_t>(index)];
    // Every target counts the same, in whatever micro-batch it is.
    const double weight =
        static_cast<double>(batch.num_targets) / static_cast<double>(std::max<int64_t>(num_targets, 1));
    const RowShare share = batch.spans.empty() ? RowShare() : RowShare{batch.spans, &mesh_.context()};
    const at::Tensor loss = decoder_.loss(batch.tokens, batch.targets, mode, batch.cu_seqlens, share);
    (loss * weight).backward();
    const size_t place = static_cast<size_t>(index) * per_batch;
    losses[place] = loss.detach().to(at::kDouble) * weight;
    if (one_by_one) losses[place + 1] = at::full_like(losses[place], weight);
  };
  const NamedTensors& parameters = decoder_.parameters();
  sum_gradients(parameters, static_cast<int64_t>(batches.size()), config_.training.accumulation, backward,
                [&](size_t parameter) { sums.add(parameter, parameters[parameter].second.grad()); });
  return losses;
}

StepTotals Trainer::reduce_gradients(const std::vector<at::Tensor>& losses, GradientReduction& sums) {
  const RankLoad load = mesh_.size() > 1 ? meter_.load(sums.waited_seconds()) : RankLoad();
  sums.finish();
  StepTotals totals = exchange_->end(losses, optimizer_->gradient_norms(), StopSignals::received(), load);
  stop_signal_ = totals.stop_signal;
  return totals;
}

/// "" when loss and gradients are finite.
std::string Trainer::what_is_not_finite(const StepTotals& totals) const {
  std::string what;
  if (!std::isfinite(totals.loss)) what = "the loss is " + fixed(totals.loss, 0);
  if (totals.not_finite.empty()) return what;
  std::vector<std::string> names;
  for (const int64_t index : totals.not_finite) {
    names.push_back(decoder_.parameters()[static_cast<size_t>(index)].first);
  }
  return what + (what.empty() ? "" : "; ") + "not finite: gradient of " + listed(names, 3);
}

void Trainer::apply_gradients(const StepRecord& record) {
  optimizer_->clip_gradients(record.gradient_norm, config_.optimizer.clip_norm);
  if (saver_) saver_->finish_copy();
  optimizer_->step(record.learning_rate);
  for (const std::vector<at::Tensor>& tensors : updated_) gradients_->spread(tensors);
}

}  // namespace lighthouse

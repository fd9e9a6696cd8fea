#include "train/switch_tracker.h"

#include <iterator>
#include <numeric>
#include <type_traits>

#include "io/json_text.h"
#include "train/text.h"

namespace lighthouse {
namespace {

constexpr int64_t kMeanSteps = 20;  // steps: long enough to average over batches, short against a stage

template <typename T>
nlohmann::json or_null(const std::optional<T>& value) {
  return value ? nlohmann::json(*value) : nlohmann::json();
}

template <typename T>
void read(const nlohmann::json& json, const char* key, std::optional<T>& value) {
  const nlohmann::json& found = json.at(key);
  value.reset();
  if (found.is_null()) return;
  if constexpr (std::is_integral_v<T>) {
    value = whole_number(found, key);
  } else {
    value = found.get<T>();
  }
}

std::string lean(double gap) {
  return gap < 0 ? "with Lighthouse attention it is " + fixed(-gap, 4) + " lower: the model still leans on stage 1"
                 : "with Lighthouse attention it is " + fixed(gap, 4) + " higher: it leans on stage 1 no more";
}

}  // namespace

std::string summary(const SwitchReport& report, int64_t lighthouse_steps, std::optional<double> gap, bool lighthouse) {
  std::string text;
  const auto add = [&](const std::string& part) { text += (text.empty() ? "" : "; ") + part; };
  if (report.pre_switch_validation && report.validation_jump) {
    add("validation loss " + fixed(*report.pre_switch_validation, 4) + " before, " +
        signed_fixed(*report.validation_jump, 4) + " with dense attention, " +
        (report.validation_recovered_step
             ? "recovered at step " + std::to_string(*report.validation_recovered_step) + ": below the pre-switch loss"
             : std::string("not recovered yet")));
  }
  if (gap) add(lean(*gap));
  if (report.pre_switch_loss && report.loss_jump) {
    add("training loss " + fixed(*report.pre_switch_loss, 4) + " before" + (lighthouse ? " (it looks ahead), " : ", ") +
        signed_fixed(*report.loss_jump, 4) + " at the first dense step");
  }
  return text.empty() ? "" : "switch to dense attention after step " + std::to_string(lighthouse_steps) + ": " + text;
}

nlohmann::ordered_json to_json(const SwitchReport& report) {
  return {{"pre_switch_loss", or_null(report.pre_switch_loss)},
          {"loss_jump", or_null(report.loss_jump)},
          {"pre_switch_validation", or_null(report.pre_switch_validation)},
          {"validation_jump", or_null(report.validation_jump)},
          {"validation_recovered_step", or_null(report.validation_recovered_step)}};
}

SwitchTracker::SwitchTracker(const TrainingConfig& training)
    : lighthouse_steps_(training.lighthouse_steps),
      switches_(training.lighthouse_steps > 0 && training.lighthouse_steps < training.steps) {}

std::optional<double> SwitchTracker::smoothed_loss() const {
  if (losses_.empty()) return std::nullopt;
  return std::accumulate(losses_.begin(), losses_.end(), 0.0) / static_cast<double>(losses_.size());
}

std::string SwitchTracker::begin_dense(int64_t step, double loss) {
  in_dense_ = true;
  report_.pre_switch_loss = smoothed_loss();
  const size_t num_losses = losses_.size();
  losses_.clear();
  if (!report_.pre_switch_loss) return "";  // no step of stage 1 had a finite loss
  report_.loss_jump = loss - *report_.pre_switch_loss;
  return "step " + std::to_string(step) + ": first with dense attention: training loss " + fixed(loss, 4) + ", " +
         signed_fixed(*report_.loss_jump, 4) + " against the mean of the last " + std::to_string(num_losses) +
         " steps before the switch";
}

std::string SwitchTracker::add_loss(int64_t step, double loss) {
  const bool dense = switches_ && step > lighthouse_steps_;
  const std::string event = dense && !in_dense_ ? begin_dense(step, loss) : "";
  losses_.push_back(loss);
  if (std::ssize(losses_) > kMeanSteps) losses_.pop_front();
  return event;
}

std::string SwitchTracker::add_validation(int64_t step, double dense, std::optional<double> lighthouse) {
  if (!switches_) return "";
  if (step == lighthouse_steps_ && lighthouse) {
    report_.pre_switch_validation = lighthouse;
    report_.validation_jump = dense - *lighthouse;
    return "step " + std::to_string(step) + ": switch to dense attention: validation loss " + fixed(*lighthouse, 4) +
           " with Lighthouse attention, " + fixed(dense, 4) + " (" + signed_fixed(*report_.validation_jump, 4) +
           ") with dense attention and the same weights";
  }
  if (step > lighthouse_steps_ && report_.pre_switch_validation && !report_.validation_recovered_step &&
      dense < *report_.pre_switch_validation) {
    report_.validation_recovered_step = step;
    return "recovered at step " + std::to_string(step) + ": below the pre-switch loss (validation: " + fixed(dense, 4) +
           " < " + fixed(*report_.pre_switch_validation, 4) + ")";
  }
  return "";
}

nlohmann::ordered_json SwitchTracker::to_json() const {
  nlohmann::ordered_json json = lighthouse::to_json(report_);
  json["in_dense"] = in_dense_;
  json["losses"] = losses_;
  return json;
}

void SwitchTracker::load_json(const nlohmann::json& json, int64_t step) {
  read(json, "pre_switch_loss", report_.pre_switch_loss);
  read(json, "loss_jump", report_.loss_jump);
  read(json, "pre_switch_validation", report_.pre_switch_validation);
  read(json, "validation_jump", report_.validation_jump);
  read(json, "validation_recovered_step", report_.validation_recovered_step);
  in_dense_ = json.at("in_dense").get<bool>();
  losses_ = json.at("losses").get<std::deque<double>>();
  if (step < lighthouse_steps_) report_ = {};
}

}  // namespace lighthouse

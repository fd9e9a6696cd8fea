#include "train/spike_detector.h"

#include <algorithm>
#include <vector>

#include "io/json_text.h"
#include "train/median.h"
#include "train/text.h"

namespace lighthouse {
namespace {

constexpr size_t kSpikeSteps = 32;  // steps
constexpr size_t kEnough = 8;       // steps from which a median says something
constexpr double kSpreads = 2;
constexpr double kLossShare = 0.1;
constexpr double kGradientRatio = 10;

bool stands_out(double loss, const std::deque<double>& losses, double usual) {
  std::vector<double> sorted(losses.begin(), losses.end());
  std::sort(sorted.begin(), sorted.end());
  const double high = sorted[(sorted.size() - 1) * 9 / 10];
  const double low = sorted[(sorted.size() - 1) / 10];
  return loss - high > kSpreads * (high - low) && loss - usual > kLossShare * usual;
}

void push(std::deque<double>& window, double value) {
  window.push_back(value);
  if (window.size() > kSpikeSteps) window.pop_front();
}

}  // namespace

std::string SpikeDetector::add(Stage stage, double loss, double gradient_norm) {
  if (stage != stage_) {  // another attention, another loss: nothing to compare with
    stage_ = stage;
    losses_.clear();
    gradient_norms_.clear();
  }
  std::string what;
  if (losses_.size() >= kEnough) {
    const double usual_loss = median({losses_.begin(), losses_.end()});
    const double usual_norm = median({gradient_norms_.begin(), gradient_norms_.end()});
    if (stands_out(loss, losses_, usual_loss)) {
      what = "loss " + fixed(loss, 4) + " (usually " + fixed(usual_loss, 4) + ")";
    }
    if (gradient_norm > kGradientRatio * usual_norm) {
      what += (what.empty() ? "" : ", ") + ("gradient norm " + fixed(gradient_norm, 2)) + " (usually " +
              fixed(usual_norm, 2) + ")";
    }
  }
  push(losses_, loss);
  push(gradient_norms_, gradient_norm);
  if (!what.empty()) ++count_;
  return what;
}

nlohmann::ordered_json SpikeDetector::to_json() const {
  return {
      {"stage", static_cast<int>(stage_)}, {"losses", losses_}, {"gradient_norms", gradient_norms_}, {"count", count_}};
}

void SpikeDetector::load_json(const nlohmann::json& json) {
  const int64_t stage = whole_member(json, "stage");
  if (stage != 1 && stage != 2) throw DamagedFile("stage " + std::to_string(stage) + " is neither 1 nor 2");
  stage_ = static_cast<Stage>(stage);
  losses_ = json.at("losses").get<std::deque<double>>();
  gradient_norms_ = json.at("gradient_norms").get<std::deque<double>>();
  count_ = whole_member(json, "count");
}

}  // namespace lighthouse

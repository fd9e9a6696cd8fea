// NaN, infinities and spikes at random places of a step: none reaches the weights.
#include <ATen/TensorOperators.h>
#include <ATen/ops/abs.h>
#include <ATen/ops/isfinite.h>
#include <ATen/record_function.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <limits>
#include <random>
#include <set>

#include "cpp/train/train_support.h"
#include "support/environment_number.h"
#include "train/trainer.h"

namespace lighthouse {
namespace {

constexpr std::array kValues = {std::numeric_limits<float>::quiet_NaN(), std::numeric_limits<float>::infinity(),
                                -std::numeric_limits<float>::infinity(), 1e30F, -1e30F};

/// Writes a value into an input of a call of an operator, forward or backward, on this thread; never into weights or
/// moments. The number has its old value again at the end, as what steps share would else be spoilt for all of them.
class Injection {
 public:
  /// At call `call` from now on of those with an input that may be changed.
  Injection(int64_t call, float value, uint64_t seed, std::set<const void*> kept)
      : call_(call), value_(value), random_(seed), kept_(std::move(kept)) {
    current_ = this;
    handle_ = at::addThreadLocalCallback(at::RecordFunctionCallback(visit).needsInputs(true));
  }
  ~Injection() {
    end();
    if (place_ != nullptr) *place_ = before_;
  }
  Injection(const Injection&) = delete;
  Injection& operator=(const Injection&) = delete;

  /// From here on nothing is changed.
  void end() {
    if (current_ != this) return;
    at::removeCallback(handle_);
    current_ = nullptr;
  }
  int64_t calls() const { return calls_; }
  const std::string& where() const { return where_; }

 private:
  static std::unique_ptr<at::ObserverContext> visit(const at::RecordFunction& function) {
    if (current_ != nullptr) current_->take(function);
    return nullptr;
  }

  void take(const at::RecordFunction& function) {
    std::vector<at::Tensor> inputs;
    for (const c10::IValue& input : function.inputs()) {
      if (!input.isTensor()) continue;
      const at::Tensor& tensor = input.toTensor();
      const bool holds_numbers = tensor.defined() && tensor.scalar_type() == at::kFloat && tensor.numel() > 0;
      if (holds_numbers && !kept_.contains(tensor.storage().data())) inputs.push_back(tensor);
    }
    if (inputs.empty() || calls_++ != call_) return;
    held_ = inputs[random_() % inputs.size()];
    int64_t offset = 0;
    for (int64_t dim = 0; dim < held_.dim(); ++dim) {
      offset += held_.stride(dim) * static_cast<int64_t>(random_() % static_cast<uint64_t>(held_.size(dim)));
    }
    place_ = static_cast<float*>(held_.data_ptr()) + offset;
    before_ = *place_;
    *place_ = value_;
    where_ = function.name();
  }

  static inline thread_local Injection* current_ = nullptr;
  at::CallbackHandle handle_ = 0;
  int64_t call_, calls_ = 0;
  float value_;
  std::mt19937_64 random_;
  std::set<const void*> kept_;
  std::string where_;
  at::Tensor held_;  ///< whose memory nobody else gets
  float* place_ = nullptr;
  float before_ = 0;
};

/// A run of which every other step has something wrong.
class InjectedValues : public ::testing::TestWithParam<Recompute> {
 protected:
  InjectedValues() {
    config_ = tiny_config(folder_);
    config_.training.steps = 10'000;
    config_.training.recompute = GetParam();
    config_.optimizer.warmup_steps = 1;
    options_.on_gradients = [this](int64_t, const NamedTensors& parameters) {
      if (injection_) injection_->end();
      if (spoil_) spoil_(parameters);
    };
  }

  /// A trainer in the middle of a stage.
  void begin(int64_t lighthouse_steps) {
    config_.training.lighthouse_steps = lighthouse_steps;
    config_.logging.run_dir = (folder_ / std::to_string(lighthouse_steps)).string();
    trainer_.emplace(config_, options_);
    for (int step = 0; step < 3; ++step) EXPECT_EQ(trainer_->step().skipped, "");
  }

  std::set<const void*> kept() const {
    std::set<const void*> storages;
    for (const auto& [name, tensor] : trainer_->decoder().parameters()) storages.insert(tensor.storage().data());
    for (const auto& [name, tensor] : trainer_->optimizer().state()) storages.insert(tensor.storage().data());
    return storages;
  }

  /// How many calls of operators a step has that could be spoilt.
  int64_t calls_of_a_step() {
    injection_.emplace(std::numeric_limits<int64_t>::max(), 0.0F, 0, kept());
    trainer_->step();
    const int64_t calls = injection_->calls();
    injection_.reset();
    return calls;
  }

  /// A step that may be skipped, and one that must not be; what it says of the first. `begin`: once what the step must
  /// not change is copied, whose calls are not to be spoilt.
  std::string step_and_check(const std::function<void()>& begin = [] {}) {
    const NamedTensors weights = copies(trainer_->decoder().parameters());
    const NamedTensors moments = copies(trainer_->optimizer().state());
    begin();
    const StepRecord record = trainer_->step();
    injection_.reset();
    spoil_ = nullptr;
    const NamedTensors& after = trainer_->decoder().parameters();
    if (!record.skipped.empty()) {
      EXPECT_TRUE(same_tensors(after, weights) && same_tensors(trainer_->optimizer().state(), moments));
    }
    for (size_t place = 0; place < after.size(); ++place) {
      const at::Tensor change = (after[place].second.detach() - weights[place].second).abs().max();
      // A step of AdamW is at most lr (1 - beta1) / sqrt(1 - beta2) long, and its decay of weights is less than that.
      EXPECT_LE(change.item<float>(), 10 * record.learning_rate) << after[place].first;
    }
    for (const auto& [name, tensor] : trainer_->optimizer().state()) {
      EXPECT_TRUE(at::isfinite(tensor).all().item<bool>()) << name;
    }
    EXPECT_EQ(trainer_->step().skipped, "") << "the step after it";
    return record.skipped;
  }

  TemporaryFolder folder_;
  RunConfig config_;
  TrainOptions options_;
  std::optional<Injection> injection_;
  std::function<void(const NamedTensors&)> spoil_;
  std::optional<Trainer> trainer_;
};

// Inputs of layers, of the loss, and gradients on their way: LIGHTHOUSE_TEST_POINTS of each stage.
TEST_P(InjectedValues, InInputsOfOperatorsDoNotReachTheWeights) {
  std::mt19937_64 random(1);
  for (const int64_t lighthouse_steps : {10'000, 0}) {
    begin(lighthouse_steps);
    const int64_t calls = calls_of_a_step();
    ASSERT_GT(calls, 100);
    int skipped = 0;
    const int points = environment_number("LIGHTHOUSE_TEST_POINTS", 10);
    for (int point = 0; point < points && !HasFailure(); ++point) {
      const auto call = static_cast<int64_t>(random() % static_cast<uint64_t>(calls));
      const float value = kValues.at(static_cast<size_t>(point) % kValues.size());
      SCOPED_TRACE("call " + std::to_string(call) + ", value " + std::to_string(value));
      const auto inject = [&] { injection_.emplace(call, value, random(), kept()); };
      skipped += step_and_check(inject).empty() ? 0 : 1;
    }
    EXPECT_GT(skipped, points / 5);
  }
}

TEST_P(InjectedValues, InGradientsDoNotReachTheWeights) {
  std::mt19937_64 random(1);
  begin(5000);
  const int points = environment_number("LIGHTHOUSE_TEST_POINTS", 10);
  for (int point = 0; point < points && !HasFailure(); ++point) {
    const float value = kValues.at(static_cast<size_t>(point) % kValues.size());
    spoil_ = [&](const NamedTensors& parameters) {
      const at::Tensor gradient = parameters[random() % parameters.size()].second.grad().flatten();
      gradient[static_cast<int64_t>(random() % static_cast<uint64_t>(gradient.numel()))].fill_(value);
    };
    EXPECT_EQ(step_and_check().empty(), std::isfinite(value)) << value;
  }
}

INSTANTIATE_TEST_SUITE_P(With, InjectedValues, ::testing::Values(Recompute::kNone, Recompute::kFull),
                         [](const auto& instance) { return std::string(word(instance.param)); });

}  // namespace
}  // namespace lighthouse

#include "train/step_meter.h"

#include <ATen/DeviceAccelerator.h>

#include <algorithm>
#include <iomanip>
#include <numeric>
#include <sstream>

#include "config/schema.h"
#include "plan/flops.h"
#include "train/device.h"
#include "train/device_memory.h"
#include "train/median.h"
#include "train/text.h"

namespace lighthouse {
namespace {

PartSeconds shares_of(PartSeconds seconds) {
  const double whole = std::accumulate(seconds.begin(), seconds.end(), 0.0);
  for (double& part : seconds) part = whole > 0 ? part / whole : 0;
  return seconds;
}

std::string percent(double share) { return fixed(100 * share, 1) + "%"; }

}  // namespace

StepMeter::StepMeter(const RunConfig& config, at::Device device, int64_t num_processes)
    : config_(config), device_(device), clock_(device) {
  const std::optional<double> peak = peak_flops(config.training, device);
  if (!peak) return;
  for (const Stage stage : {Stage::kLighthouse, Stage::kDense}) {
    samples(stage).ideal_seconds =
        step_flops(config, stage == Stage::kLighthouse) / (*peak * static_cast<double>(num_processes));
  }
}

void StepMeter::begin(int64_t step) {
  if (measures_) clock_.stop();  // the step before ended in an exception
  const int64_t interval = config_.logging.timing_interval;
  measures_ = interval > 0 && step % interval == 0;
  begin_ = std::chrono::steady_clock::now();
  if (measures_) clock_.start(Part::kData);
}

void StepMeter::end(StepRecord& record) {
  Samples& stage = samples(record.stage);
  if (measures_) {
    record.parts = clock_.stop();
    measures_ = false;
    if (!stage.seconds) stage.seconds.emplace();
    for (size_t part = 0; part < kNumParts; ++part) stage.seconds->at(part) += record.parts->at(part);
  }
  record.step_seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count();
  record.tokens_per_s = static_cast<double>(tokens_per_step(config_.training)) / record.step_seconds;
  if (stage.ideal_seconds) record.mfu = *stage.ideal_seconds / record.step_seconds;
  stage.tokens_per_s.push_back(record.tokens_per_s);
  if (record.mfu) stage.mfu.push_back(*record.mfu);
}

RankLoad StepMeter::load(double waited_seconds) const {
  RankLoad load;
  if (const std::optional<DeviceMemory> memory = device_memory(device_)) {
    load.peak_memory = memory->peak_allocated;
    for (const Samples& stage : samples_) load.peak_memory = std::max(*load.peak_memory, stage.peak_memory.value_or(0));
  }
  if (!measures_) return load;
  if (!device_.is_cpu()) at::accelerator::getCurrentStream(device_.index()).synchronize();
  load.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - begin_).count() - waited_seconds;
  return load;
}

std::optional<int64_t> StepMeter::take_peak_memory(Stage stage) {
  const std::optional<DeviceMemory> memory = device_memory(device_);
  if (!memory) return std::nullopt;
  reset_peak_memory(device_);
  std::optional<int64_t>& highest = samples(stage).peak_memory;
  highest = std::max(highest.value_or(0), memory->peak_allocated);
  return memory->peak_allocated;
}

std::vector<StageSpeed> StepMeter::summary() const {
  std::vector<StageSpeed> stages;
  for (const Stage stage : {Stage::kLighthouse, Stage::kDense}) {
    const Samples& of_stage = samples_.at(stage == Stage::kLighthouse ? 0 : 1);
    if (of_stage.tokens_per_s.empty()) continue;
    StageSpeed speed;
    speed.stage = stage;
    speed.attention = stage_name(stage, config_.attention);
    speed.num_steps = static_cast<int64_t>(of_stage.tokens_per_s.size());
    speed.tokens_per_s = median(of_stage.tokens_per_s);
    if (!of_stage.mfu.empty()) speed.mfu = median(of_stage.mfu);
    speed.peak_memory = of_stage.peak_memory;
    if (of_stage.seconds) speed.shares = shares_of(*of_stage.seconds);
    stages.push_back(speed);
  }
  return stages;
}

std::string speed_table(const std::vector<StageSpeed>& stages) {
  if (stages.empty()) return "";
  std::ostringstream table;
  const auto row = [&](const std::string& name, const std::vector<std::string>& cells) {
    table << std::left << std::setw(20) << name << std::right;
    for (const std::string& cell : cells) table << std::setw(11) << cell;
    table << '\n';
  };
  std::vector<std::string> header = {"tokens/s", "mfu", "memory"};
  for (size_t part = 0; part < kNumParts; ++part) header.emplace_back(part_name(static_cast<Part>(part)));
  row("speed of this start", header);
  for (const StageSpeed& stage : stages) {
    std::vector<std::string> cells = {
        with_unit(stage.tokens_per_s), stage.mfu ? percent(*stage.mfu) : "-",
        stage.peak_memory ? with_unit(static_cast<double>(*stage.peak_memory)) + "B" : "-"};
    for (size_t part = 0; part < kNumParts; ++part) {
      cells.push_back(stage.shares ? percent(stage.shares->at(part)) : "-");
    }
    row("stage " + std::to_string(static_cast<int>(stage.stage)) + " " + stage.attention, cells);
  }
  return table.str();
}

}  // namespace lighthouse

#include "train/checkpoint_saver.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <stdexcept>
#include <utility>

#include "lighthouse/check.h"
#include "train/background_thread.h"
#include "train/text.h"

namespace lighthouse {
namespace {

/// Memory of the host for a copy of each.
NamedTensors host_memory_for(const NamedTensors& tensors) {
  NamedTensors host;
  for (const auto& [name, tensor] : tensors) {
    const at::TensorOptions options = tensor.options().device(at::kCPU).requires_grad(false);
    host.emplace_back(name,
                      at::empty_like(tensor, options.pinned_memory(tensor.is_cuda()), at::MemoryFormat::Contiguous));
  }
  return host;
}

c10::impl::VirtualGuardImpl streams_of(at::Device device) { return c10::impl::VirtualGuardImpl(device.type()); }

}  // namespace

CheckpointSaver::CheckpointSaver(std::filesystem::path run_dir, const CheckpointConfig& config, NamedTensors model,
                                 NamedTensors optimizer)
    : run_dir_(std::move(run_dir)), config_(config), device_(model.front().second.device()) {
  live_ = model;
  live_.insert(live_.end(), optimizer.begin(), optimizer.end());
  if (!config_.asynchronous) {
    saved_.model = std::move(model);
    saved_.optimizer = std::move(optimizer);
    return;
  }
  try {
    saved_.model = host_memory_for(model);
    saved_.optimizer = host_memory_for(optimizer);
  } catch (const c10::Error& error) {
    throw std::runtime_error("no " + with_unit(static_cast<double>(total_bytes(live_))) +
                             "B of host memory to copy checkpoints to (" + error.what_without_backtrace() +
                             "); checkpoint.asynchronous = false needs none: steps then wait until one is written");
  }
  if (device_.is_cuda()) copies_ = streams_of(device_).getStreamFromGlobalPool(device_);
}

CheckpointSaver::~CheckpointSaver() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointSaver::start(int64_t step, std::string state_json) {
  LIGHTHOUSE_CHECK(!pending(), "CheckpointSaver: step ", step, " before the end of step ", saved_.step, " was taken");
  saved_.step = step;
  saved_.state_json = std::move(state_json);
  if (config_.asynchronous) copy();
  ended_ = false;
  thread_ = start_background_thread([this] { write(); });
  if (!config_.asynchronous) ended_.wait(false);
}

void CheckpointSaver::copy() {
  const at::NoGradGuard no_grad;
  std::optional<c10::StreamGuard> on_copies;
  if (copies_) {
    c10::Event now(device_.type());
    now.record(streams_of(device_).getStream(device_));
    now.block(*copies_);
    on_copies.emplace(*copies_);
  }
  auto source = live_.begin();
  for (const NamedTensors* group : {&saved_.model, &saved_.optimizer}) {
    for (const auto& [name, host] : *group) host.copy_((source++)->second, /*non_blocking=*/true);
  }
  if (copies_) {
    copied_.emplace(device_.type());
    copied_->record(*copies_);
  }
}

void CheckpointSaver::finish_copy() {
  if (copied_) copied_->block(streams_of(device_).getStream(device_));
}

void CheckpointSaver::write() {
  try {
    if (copied_) copied_->synchronize();
    save_checkpoint(run_dir_, saved_, config_.keep);
  } catch (...) {
    error_ = std::current_exception();
  }
  ended_ = true;
  ended_.notify_all();
}

void CheckpointSaver::take_end() {
  LIGHTHOUSE_CHECK(pending(), "CheckpointSaver: nothing was started");
  thread_.join();
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
}

}  // namespace lighthouse

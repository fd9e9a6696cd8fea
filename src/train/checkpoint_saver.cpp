#include "train/checkpoint_saver.h"

#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty_like.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <algorithm>
#include <system_error>
#include <utility>

#include "lighthouse/check.h"
#include "train/background_thread.h"
#include "train/host_room.h"
#include "train/out_of_memory.h"

namespace lighthouse {
namespace {

/// Memory of the host for a copy.
at::Tensor host_memory_for(const at::Tensor& tensor) {
  const at::TensorOptions options = tensor.options().device(at::kCPU).requires_grad(false);
  return at::empty_like(tensor, options.pinned_memory(tensor.is_cuda()), at::MemoryFormat::Contiguous);
}

at::Device device_of(const NamedTensors& tensors) {
  LIGHTHOUSE_CHECK(!tensors.empty(), "CheckpointSaver: no tensors");
  const auto is_there = [](const auto& named) { return !named.second.is_cpu(); };
  const auto found = std::find_if(tensors.begin(), tensors.end(), is_there);
  return found == tensors.end() ? at::Device(at::kCPU) : found->second.device();
}

c10::impl::VirtualGuardImpl streams_of(at::Device device) { return c10::impl::VirtualGuardImpl(device.type()); }

}  // namespace

CheckpointSaver::CheckpointSaver(std::filesystem::path run_dir, const CheckpointConfig& config,
                                 const NamedTensors& model, std::vector<TensorRange> optimizer, CheckpointRanks ranks,
                                 std::string model_config_json)
    : run_dir_(std::move(run_dir)),
      config_(config),
      ranks_(std::move(ranks)),
      device_(device_of(model)),
      saved_{0, weights_of_rank(model, ranks_), std::move(optimizer), "", std::move(model_config_json)} {
  if (!config_.asynchronous) return;
  for (const at::Tensor* tensor : saved_tensors()) live_.push_back(*tensor);
  constexpr const char* kWhat = "to copy checkpoints to";
  constexpr const char* kRemedy = "checkpoint.asynchronous = false needs none: steps then wait until one is written";
  if (device_.is_cuda()) check_host_room(bytes(), kWhat, kRemedy);
  try {
    for (at::Tensor* tensor : saved_tensors()) *tensor = host_memory_for(*tensor);
  } catch (const c10::Error& error) {
    throw no_host_memory(bytes(), kWhat, words_of(error), kRemedy);
  }
  if (device_.is_cuda()) copies_ = streams_of(device_).getStreamFromGlobalPool(device_);
}

int64_t CheckpointSaver::bytes() const { return total_bytes(saved_.model) + total_bytes(saved_.optimizer); }

std::vector<at::Tensor*> CheckpointSaver::saved_tensors() {
  std::vector<at::Tensor*> tensors;
  for (auto& [name, tensor] : saved_.model) tensors.push_back(&tensor);
  for (TensorRange& range : saved_.optimizer) tensors.push_back(&range.values);
  return tensors;
}

CheckpointSaver::~CheckpointSaver() {
  if (thread_.joinable()) thread_.join();
}

void CheckpointSaver::start(int64_t step, std::string state_json) {
  LIGHTHOUSE_CHECK(!pending(), "CheckpointSaver: step ", step, " before the end of step ", saved_.step, " was taken");
  saved_.step = step;
  saved_.state_json = std::move(state_json);
  if (config_.asynchronous) {
    try {
      copy();
    } catch (...) {  // the other ranks must hear of it
      error_ = std::current_exception();
    }
  }
  ended_ = false;
  pending_ = true;
  try {
    thread_ = start_background_thread([this] { write(); });
  } catch (const std::system_error&) {  // no thread is to be had: the steps wait
    write();
  }
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
  for (const at::Tensor* host : saved_tensors()) host->copy_(*source++, /*non_blocking=*/true);
  if (copies_) {
    copied_.emplace(device_.type());
    copied_->record(*copies_);
  }
}

void CheckpointSaver::finish_copy() {
  if (copied_) copied_->block(streams_of(device_).getStream(device_));
}

void CheckpointSaver::write() {
  const std::exception_ptr failed_copy = std::exchange(error_, nullptr);
  try {
    undone_ = save_checkpoint(run_dir_, saved_, config_.keep, ranks_, [&] {
      if (failed_copy) std::rethrow_exception(failed_copy);
      if (copied_) copied_->synchronize();
    });
  } catch (...) {
    error_ = std::current_exception();
  }
  ended_ = true;
  ended_.notify_all();
}

std::string CheckpointSaver::take_end() {
  LIGHTHOUSE_CHECK(pending(), "CheckpointSaver: nothing was started");
  if (thread_.joinable()) thread_.join();
  pending_ = false;
  if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  return undone_;
}

}  // namespace lighthouse

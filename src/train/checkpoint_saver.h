// Checkpoints written while the steps that follow are computed.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Event.h>

#include <atomic>
#include <cstdint>
#include <exception>
#include <filesystem>
#include <optional>
#include <string>
#include <thread>

#include "config/run_config.h"
#include "train/checkpoint.h"

namespace lighthouse {

/// Saves the same tensors again and again, one checkpoint at a time. On a GPU they are copied to page-locked host
/// memory on a stream of their own, behind all work that the current stream was given before; a thread then writes the
/// copies (save_checkpoint). With checkpoint.asynchronous = false nothing is copied and start() returns when all is
/// written.
class CheckpointSaver {
 public:
  /// `model` and `optimizer`: live tensors, all on one device. Takes host memory for a copy of them, which the saver
  /// keeps. Throws std::runtime_error with the size when it cannot be had.
  CheckpointSaver(std::filesystem::path run_dir, const CheckpointConfig& config, NamedTensors model,
                  NamedTensors optimizer);
  ~CheckpointSaver();  ///< when the save under way has ended
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Saves the tensors as they are now. Throws InvalidArgument before the end of an earlier save was taken.
  void start(int64_t step, std::string state_json);
  /// After this the tensors may be written to on the current stream; before it only read.
  void finish_copy();

  bool pending() const { return thread_.joinable(); }  ///< started, end not yet taken
  bool under_way() const { return pending() && !ended_; }
  int64_t step() const { return saved_.step; }  ///< of the last start()
  /// Takes the end of the pending save, waiting for it: returns when the checkpoint is whole, throws what
  /// save_checkpoint throws.
  void take_end();

 private:
  void copy();
  void write();

  std::filesystem::path run_dir_;
  CheckpointConfig config_;
  at::Device device_;
  NamedTensors live_;  ///< of model and optimizer
  Checkpoint saved_;   ///< the copies, or the live tensors
  std::optional<c10::Stream> copies_;
  std::optional<c10::Event> copied_;  ///< on copies_
  std::thread thread_;
  std::atomic<bool> ended_ = false;
  std::exception_ptr error_;  ///< of the thread, once it has ended
};

}  // namespace lighthouse

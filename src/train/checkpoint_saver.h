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
#include <vector>

#include "config/run_config.h"
#include "train/checkpoint.h"

namespace lighthouse {

/// Saves the same tensors again and again, one checkpoint at a time. On a GPU they are copied to page-locked host
/// memory on a stream of their own, behind all work that the current stream was given before; a thread then writes the
/// copies (save_checkpoint), as do those of the other ranks. With checkpoint.asynchronous = false nothing is copied and
/// start() returns when all is written.
class CheckpointSaver {
 public:
  /// Live tensors, on one device or on the host: all weights, of which this rank writes some (weights_of_rank), and the
  /// moments that it has. Takes host memory for a copy of what it writes, which the saver keeps. Throws
  /// std::runtime_error with the size when it cannot be had. `model_config_json`: as in Checkpoint.
  CheckpointSaver(std::filesystem::path run_dir, const CheckpointConfig& config, const NamedTensors& model,
                  std::vector<TensorRange> optimizer, CheckpointRanks ranks = {}, std::string model_config_json = "");
  ~CheckpointSaver();  ///< when the save under way has ended
  CheckpointSaver(const CheckpointSaver&) = delete;
  CheckpointSaver& operator=(const CheckpointSaver&) = delete;

  /// Saves the tensors as they are now; all ranks do. Throws InvalidArgument before the end of an earlier save was
  /// taken. What else fails is thrown by take_end, on all ranks.
  void start(int64_t step, std::string state_json);
  /// After this the tensors may be written to on the current stream; before it only read.
  void finish_copy();

  int64_t bytes() const;                     ///< of the tensors that this rank writes
  bool pending() const { return pending_; }  ///< started, end not yet taken
  bool under_way() const { return pending() && !ended_; }
  int64_t step() const { return saved_.step; }  ///< of the last start()
  /// Takes the end of the pending save, waiting for it: when the checkpoint is whole, returns and throws what
  /// save_checkpoint does.
  std::string take_end();

 private:
  std::vector<at::Tensor*> saved_tensors();
  void copy();
  void write();

  std::filesystem::path run_dir_;
  CheckpointConfig config_;
  CheckpointRanks ranks_;
  at::Device device_;
  std::vector<at::Tensor> live_;  ///< of model and optimizer
  Checkpoint saved_;              ///< the copies, or the live tensors
  std::optional<c10::Stream> copies_;
  std::optional<c10::Event> copied_;  ///< on copies_
  std::thread thread_;
  bool pending_ = false;
  std::atomic<bool> ended_ = false;
  std::string undone_;        ///< what save_checkpoint returned
  std::exception_ptr error_;  ///< of the copy, or of the thread once it has ended
};

}  // namespace lighthouse

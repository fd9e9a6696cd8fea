// What checkpoints need to know of the processes that train together. No network: the caller brings it.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace lighthouse {

/// The place of this process among those that write and load one checkpoint together. By default it is alone.
struct CheckpointRanks {
  int64_t rank = 0;
  int64_t size = 1;

  /// Runs on rank 0 with the texts of all ranks, in their order; its result is everyone's. Throws nothing.
  using Conclude = std::function<std::string(const std::vector<std::string>& texts)>;
  /// Every rank calls it, in the same order: brings the `text` of all of them to rank 0, calls `conclude` there and
  /// nowhere else, and returns its result on all.
  ///
  /// Called from the thread that writes checkpoints, next to the collectives of training, so it must not use their
  /// communicators; a store of keys serves (c10d::Store: set, wait, get). Called only when this rank's part is on the
  /// disk, so it waits as long as the slowest disk takes: it has no time limit while the other ranks live, and throws
  /// when one is lost. Texts are some MB at most: a line for each tensor.
  std::function<std::string(const std::string& text, const Conclude& conclude)> agree =
      [](const std::string& text, const Conclude& conclude) { return conclude({text}); };
};

/// Runs `body` on every rank, then `conclude` on rank 0 with what they returned, and returns its result on all: one
/// call of agree.
///
/// What is thrown on one rank, in either, ends in an exception on all: there it is what it was, elsewhere a
/// std::runtime_error with the number of the rank and the text. Before that rank 0 asks `try_again`, giving the errno
/// of the failures (0 where there is none); if that returns true, all begin anew.
std::string together(const CheckpointRanks& ranks, const std::function<std::string()>& body,
                     const CheckpointRanks::Conclude& conclude,
                     const std::function<bool(const std::vector<int>& errors)>& try_again = {});

}  // namespace lighthouse

// What a disk may hold after a loss of power, from the calls on files before it.
//
// What POSIX promises and no more: after fsync of a file its bytes are on the disk, after fsync of a folder the names
// in it are. Of what was done since then any part may be there, in any order: of a file each write, as a whole, half,
// or as zeros; of a folder each name that was made, moved or removed. A rename within a folder is there or not.
#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "cpp/train/injected_faults.h"

namespace lighthouse {

class WriteLog {
 public:
  /// Of the files in `root`, which are on the disk as they are now.
  explicit WriteLog(std::filesystem::path root);

  /// A call that succeeded; those on files elsewhere are passed over.
  void add(const faults::Change& change);
  size_t size() const { return operations_.size(); }

  /// The operations of the first `length` that may be lost, by their places.
  std::vector<size_t> not_durable(size_t length) const;

  enum class Fate { kLost, kThere, kHalf, kZeros };  ///< the last two: of writes; else kThere
  using Fates = std::map<size_t, Fate>;              ///< of what is not durable; of others kThere

  /// Writes what the first `length` leave into a folder that does not exist.
  void replay(size_t length, const Fates& fates, const std::filesystem::path& folder) const;

 private:
  static constexpr size_t kNothing = SIZE_MAX;
  struct Node {
    bool is_folder = false;
    std::string bytes;                    ///< of a file
    std::map<std::string, size_t> names;  ///< of a folder
  };
  using Nodes = std::vector<Node>;  ///< the first is the root
  struct Operation {
    enum class Kind { kNames, kWrite, kSync } kind;
    size_t node;
    std::vector<std::pair<std::string, size_t>> names;  ///< that change, and what they stand for then
    std::string bytes;
    size_t offset = 0;
  };

  size_t read(const std::filesystem::path& path);
  size_t find(const std::filesystem::path& path) const;
  void append(Operation operation);
  static void apply(const Operation& operation, Fate fate, Nodes& nodes);
  static void write(const Nodes& nodes, size_t node, const std::filesystem::path& path);

  std::filesystem::path root_;
  Nodes base_;  ///< as it was, and all that were made since, empty
  Nodes now_;
  std::vector<Operation> operations_;
};

/// All lost, all there, `random` more, and where these are several each alone lost or there.
std::vector<WriteLog::Fates> fates_of(const std::vector<size_t>& not_durable, int random, std::mt19937_64& source);

}  // namespace lighthouse

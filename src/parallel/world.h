// The processes of one launch: they find one another, agree on what they compute, and are told when one is lost.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "parallel/group.h"
#include "parallel/launch.h"
#include "parallel/lookout.h"

namespace c10d {
class Store;
}

namespace lighthouse {

/// Ranks were started with things that must be the same and are not. The message is the same on all ranks; rank 0 says
/// it, the others end in silence (is_speaker).
class Disagreement : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

/// Ranks that do not find one another.
class StartFailure : public std::runtime_error {
 public:
  StartFailure(const std::string& what, bool is_mine) : std::runtime_error(what), is_mine_(is_mine) {}
  /// Whether it is this rank's to say, since no other is sure to know.
  bool is_mine() const { return is_mine_; }

 private:
  bool is_mine_;
};

struct WorldOptions {
  c10::Device device = c10::kCPU;              ///< of the tensors that are exchanged; one GPU for each rank
  std::chrono::milliseconds timeout{600000};   ///< of a collective
  std::chrono::milliseconds patience{300000};  ///< for all ranks to start, and to connect
  SayFailure say_failure{};                    ///< on GPUs (LookoutOptions::say)
  /// Told once, after ten seconds or half of `patience`, which ranks are waited for, and where; on any thread.
  std::function<void(const std::string& text)> say_waiting{};
};

class World {
 public:
  /// Returns when all ranks are there. A port that is taken, an address that does not answer, ranks that do not come or
  /// are of another number: StartFailure that says which. std::runtime_error where rank 0 came, and went.
  World(const Launch& launch, const WorldOptions& options);
  World(const World&) = delete;
  World& operator=(const World&) = delete;
  /// Leaves. Rank 0, if it hosts the store, waits some seconds for the others, which could not say their errors
  /// without.
  ~World();

  int64_t rank() const { return launch_.rank; }
  int64_t size() const { return launch_.world_size; }
  /// Whether this rank writes to the terminal and the log.
  bool is_speaker() const { return launch_.rank == 0; }
  const Launch& launch() const { return launch_; }
  Watch& watch() { return *watch_; }
  /// Whether a RankFailure has been said by WorldOptions::say_failure.
  bool has_said_failure() const;
  /// recorded_collectives of this rank, for who looks for the cause of a RankFailure.
  std::string recorded_collectives() const;

  /// All ranks call it with a value that must be the same: the configuration, versions, the corpus' fingerprint. Throws
  /// Disagreement on every rank, with the first line that differs and the ranks that have it, or with what a rank that
  /// did not come said in abandon.
  void agree(const std::string& topic, const std::string& value);
  /// This rank does not start, because of `why`: the others, which wait for it in agree, are told. Throws nothing.
  void abandon(const std::string& why);

  /// Every rank calls it, in the same order; on any thread, but on one at a time. `conclude` gets the texts of all
  /// ranks on rank 0, and what it returns is everyone's. By the store alone, next to collectives. Waits as long as the
  /// other ranks live; RankFailure where one does not.
  using Conclude = std::function<std::string(const std::vector<std::string>& texts)>;
  std::string conclude(const std::string& text, const Conclude& conclude);

  /// A group of `ranks` (ascending), which all of them make at the same time; `name` is the group's, one for each set
  /// of ranks: 'context 0'. Outlived by the world.
  std::unique_ptr<Group> make_group(const std::string& name, const std::vector<int64_t>& ranks);

 private:
  void wait_for(const std::vector<std::string>& keys);
  void wait_while_all_live(const std::vector<std::string>& keys);
  using Store = c10::intrusive_ptr<c10d::Store>;
  template <typename Question>
  auto ask(Question question, std::chrono::milliseconds limit) const;
  bool is_there(const Store& store, const std::vector<std::string>& keys) const;
  std::string value_of(const Store& store, const std::string& key) const;
  void set(const Store& store, const std::string& key, const std::string& value) const;

  Launch launch_;
  WorldOptions options_;
  c10::intrusive_ptr<c10d::Store> store_;
  c10::intrusive_ptr<c10d::Store> texts_;  ///< a connection for conclude
  int64_t num_conclusions_ = 0;
  mutable std::atomic<bool> is_silent_ = false;  ///< the store has not answered once, and is not asked again
  std::unique_ptr<Watch> watch_;
  std::unique_ptr<Lookout> lookout_;  ///< of collectives on a GPU; null on the CPU, where the host waits for each
};

}  // namespace lighthouse

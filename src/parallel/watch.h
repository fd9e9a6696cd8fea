// Which rank is at fault when a collective fails. The communication libraries know ports and sequence numbers only.
#pragma once

#include <c10/util/intrusive_ptr.h>

#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <thread>

namespace c10d {
class Store;
}

namespace lighthouse {

/// A thread writes into the store, over a connection of its own, that this rank lives and what it does. A rank whose
/// collective fails reads what the others wrote, twice: who wrote nothing in between is dead or stopped, who does
/// something else is late or lost.
class Watch {
 public:
  Watch(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size);
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;
  ~Watch();

  /// What this rank does from now on, as 'step 3, layer 7, all-to-all of rows'; `place` before `activity`.
  void enter(const std::string& activity);
  /// Where the following activities are: 'step 3'. Written at once, over the network.
  void set_place(const std::string& place);
  /// What this rank does now.
  std::string doing() const;

  /// After an error: one line for each rank that is dead, stopped or elsewhere; empty where none is, and a line that
  /// says so where the store is gone or silent. Takes about two seconds, never longer than eight; throws nothing.
  std::string diagnosis() const;
  /// The lines of those alone that are dead or stopped, or that the store is gone. As long, and as quiet.
  std::string lost() const;

 private:
  std::string report(bool elsewhere) const;
  void beat();
  bool write_note();

  /// Connections of their own, made while the store is there: to connect to one that is gone takes its whole timeout.
  c10::intrusive_ptr<c10d::Store> beats_, looks_;
  int64_t rank_, size_;
  std::mutex writing_;  ///< of notes: count_ and beats_
  int64_t count_ = 0;
  mutable std::mutex mutex_;  ///< of the rest
  std::condition_variable changed_;
  std::string place_, activity_ = "start";
  bool stopped_ = false;
  std::thread thread_;
};

}  // namespace lighthouse

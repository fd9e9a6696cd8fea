#include "parallel/watch.h"

#include <chrono>
#include <exception>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <vector>

#include "lighthouse/check.h"
#include "parallel/answer.h"

namespace lighthouse {
namespace {

using std::chrono::milliseconds;
constexpr milliseconds kBeat{500};
constexpr milliseconds kBetweenReports{1600};  // three beats and a slow store
constexpr milliseconds kPatience{3000};        // with a store that does not answer

std::string key(int64_t rank) { return "watch/" + std::to_string(rank); }

/// What each rank last wrote: a count of beats, a space and what it does.
std::vector<std::string> look(const c10::intrusive_ptr<c10d::Store>& store, int64_t size) {
  return answer_within(kPatience, [store, size] {
    std::vector<std::string> notes;
    for (int64_t rank = 0; rank < size; ++rank) {
      std::string note;
      if (store->check({key(rank)})) {
        const std::vector<uint8_t> bytes = store->get(key(rank));
        note.assign(bytes.begin(), bytes.end());
      }
      notes.push_back(note);
    }
    return notes;
  });
}

}  // namespace

Watch::Watch(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size)
    : beats_(store->clone()), looks_(store->clone()), rank_(rank), size_(size), thread_([this] { beat(); }) {
  looks_->setTimeout(kPatience);
}

Watch::~Watch() {
  {
    const std::lock_guard lock(mutex_);
    stopped_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Watch::enter(const std::string& activity) {
  const std::lock_guard lock(mutex_);
  activity_ = activity;
}

void Watch::set_place(const std::string& place) {
  {
    const std::lock_guard lock(mutex_);
    place_ = place;
  }
  write_note();  // at once, or what was last seen of a rank that dies now would be a place before
}

std::string Watch::doing() const {
  const std::lock_guard lock(mutex_);
  return place_.empty() ? activity_ : place_ + ", " + activity_;
}

bool Watch::write_note() {
  const std::lock_guard lock(writing_);
  const std::string note = std::to_string(++count_) + " " + doing();
  try {
    beats_->set(key(rank_), std::vector<uint8_t>(note.begin(), note.end()));
    return true;
  } catch (const std::exception&) {
    return false;  // the store is gone, with the rank or the launcher that hosts it; the next collective will say so
  }
}

void Watch::beat() {
  while (write_note()) {
    std::unique_lock lock(mutex_);
    if (stopped_) return;
    changed_.wait_for(lock, kBeat);
    if (stopped_) return;
  }
}

std::string Watch::diagnosis() const { return report(/*elsewhere=*/true); }

std::string Watch::lost() const { return report(/*elsewhere=*/false); }

std::string Watch::report(bool elsewhere) const {
  try {
    const std::vector<std::string> before = look(looks_, size_);
    std::this_thread::sleep_for(kBetweenReports);
    const std::vector<std::string> after = look(looks_, size_);
    const std::string mine = doing();
    std::string lines;
    for (int64_t rank = 0; rank < size_; ++rank) {
      if (rank == rank_) continue;
      const std::string& note = after[static_cast<size_t>(rank)];
      const std::string where = note.empty() ? "start" : note.substr(note.find(' ') + 1);
      if (note == before[static_cast<size_t>(rank)]) {
        lines += detail::concat("\n  rank ", rank, " is dead or stopped; last seen in '", where, "'");
      } else if (elsewhere && where != mine) {
        lines += detail::concat("\n  rank ", rank, " lives, but is in '", where, "'");
      }
    }
    return lines;
  } catch (const std::exception&) {
    return std::string("\n  ") + NoAnswer::kWho;
  }
}

}  // namespace lighthouse

#include "parallel/world.h"

#include <c10/util/Exception.h>
#include <c10/util/Logging.h>
#include <netdb.h>

#include <algorithm>
#include <charconv>
#include <cstdlib>
#include <numeric>
#include <sstream>
#include <thread>
#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/PrefixStore.hpp>
#include <torch/csrc/distributed/c10d/TCPStore.hpp>
#include <utility>

#include "lighthouse/check.h"
#include "parallel/answer.h"
#include "parallel/backend.h"
#include "parallel/late_word.h"
#include "parallel/watch.h"

namespace lighthouse {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;
constexpr milliseconds kLeaving{3000};         // others diagnose for about two seconds
constexpr milliseconds kAfterLookout{600000};  // NCCL's own watchdog would end the process without our words
constexpr milliseconds kSilent{10000};         // at most; then it is said that others are waited for
constexpr milliseconds kLook{20};
constexpr milliseconds kLate{1000};           // for c10d to say in time why there is no store
constexpr milliseconds kBetweenRounds{1000};  // for ranks that are lost, of one that waits for them
constexpr const char* kAbandoned = "abandoned";

std::string count_of(const char* what, int64_t count) { return std::to_string(count) + " " + what; }

milliseconds silence(const WorldOptions& how) { return std::min(kSilent, how.patience / 2); }

std::string place_of(const Launch& launch) { return launch.address + ":" + std::to_string(launch.port); }

/// Why there is no such host; "" where there is.
std::string name_error(const std::string& host) {
  addrinfo* found = nullptr;
  const int error = ::getaddrinfo(host.c_str(), nullptr, nullptr, &found);
  if (found != nullptr) ::freeaddrinfo(found);
  return error == 0 ? "" : ::gai_strerror(error);
}

/// Why this rank has no store, in the words of c10d `why`.
StartFailure no_store(const Launch& launch, milliseconds patience, const std::string& why) {
  const std::string rank = "rank " + std::to_string(launch.rank);
  if (const std::string unknown = name_error(launch.address); !unknown.empty()) {
    return {rank + " finds no host '" + launch.address + "' (MASTER_ADDR), where rank 0 is to be: " + unknown, true};
  }
  if (launch.rank == 0 && !launch.launcher_hosts_store) {
    return {rank + " cannot open port " + std::to_string(launch.port) +
                ", where the others are to find it: another program, or another run, has it; take another "
                "(MASTER_PORT, torchrun --master-port) (" +
                why + ")",
            true};
  }
  return {rank + " cannot reach rank 0 at " + place_of(launch) + " within " + count_of("s", patience.count() / 1000) +
              ": it did not start, or MASTER_ADDR and MASTER_PORT are not the same on all ranks (" + why + ")",
          true};
}

c10::intrusive_ptr<c10d::Store> connect(const Launch& launch, const WorldOptions& how) {
  c10d::TCPStoreOptions options;
  options.port = launch.port;
  options.isServer = launch.rank == 0 && !launch.launcher_hosts_store;
  options.waitWorkers = false;  // we count them, and can say who is missing
  options.timeout = how.patience;
  const auto say = [&] { how.say_waiting("waiting for rank 0 at " + place_of(launch)); };
  const LateWord late(silence(how), how.say_waiting ? std::function<void()>(say) : std::function<void()>());
  try {
    // It waits by itself, but longer, and for ever for what something else that listens there would say.
    const auto store = answer_within(how.patience + kLate, [address = launch.address, options] {
      return c10::make_intrusive<c10d::TCPStore>(address, options);
    });
    return c10::make_intrusive<c10d::PrefixStore>("lighthouse/" + launch.attempt, store);
  } catch (const std::exception& error) {
    throw no_store(launch, how.patience, first_line(error.what()));
  }
}

std::vector<uint8_t> bytes_of(const std::string& text) { return {text.begin(), text.end()}; }

std::string names_of(const std::vector<int64_t>& ranks) {
  std::ostringstream names;
  names << (ranks.size() == 1 ? "rank " : "ranks ");
  for (size_t i = 0; i < ranks.size(); ++i) names << (i == 0 ? "" : ", ") << ranks[i];
  return names.str();
}

/// Whether `rank` is the first of those that are there.
bool is_first(int64_t rank, const std::vector<int64_t>& missing) {
  const auto is_missing = [&](int64_t of) { return std::binary_search(missing.begin(), missing.end(), of); };
  for (int64_t before = 0; before < rank; ++before) {
    if (!is_missing(before)) return false;
  }
  return true;
}

std::string arrived(const std::string& place, int64_t rank) { return place + "/" + std::to_string(rank); }

/// Takes those out of `missing` that have come to `place`. Ranks say of how many they are: StartFailure where rank 0
/// and another are not of the same number. These two look, so that the store is not asked for a square of them.
std::vector<int64_t> still_missing(const c10::intrusive_ptr<c10d::Store>& store, const std::string& place,
                                   std::vector<int64_t> missing, const Launch& launch) {
  std::erase_if(missing, [&](int64_t rank) {
    if (!store->check({arrived(place, rank)})) return false;
    if (rank != 0 && launch.rank != 0) return true;
    const std::vector<uint8_t> text = store->get(arrived(place, rank));
    const auto* const begin = reinterpret_cast<const char*>(text.data());
    int64_t its = 0;
    std::from_chars(begin, begin + text.size(), its);
    if (its == launch.world_size) return true;
    // Rank 0 sees those below its own number, and says it.
    const bool is_mine = launch.rank == 0 || launch.rank >= its;
    throw StartFailure("rank " + std::to_string(rank) + " was started as one of " + std::to_string(its) + ", rank " +
                           std::to_string(launch.rank) + " as one of " + std::to_string(launch.world_size) +
                           "; start all ranks with the same WORLD_SIZE",
                       is_mine);
  });
  return missing;
}

/// Returns when all ranks have come to `place`.
void wait_for_all(const c10::intrusive_ptr<c10d::Store>& store, const std::string& place, const Launch& launch,
                  const WorldOptions& how) try {
  store->set(arrived(place, launch.rank), bytes_of(std::to_string(launch.world_size)));
  const auto begin = steady_clock::now();
  bool is_silent = how.say_waiting != nullptr;
  std::vector<int64_t> missing(static_cast<size_t>(launch.world_size));
  std::iota(missing.begin(), missing.end(), 0);
  while (true) {
    missing = answer_within(how.patience, [=] { return still_missing(store, place, missing, launch); });
    if (missing.empty()) return;
    const std::string who = names_of(missing) + " of " + std::to_string(launch.world_size);
    const auto waited = steady_clock::now() - begin;
    if (waited >= how.patience) {
      throw StartFailure(who + " did not start within " + count_of("s", how.patience.count() / 1000) +
                             ", or not with " + place_of(launch) + " as MASTER_ADDR and MASTER_PORT",
                         is_first(launch.rank, missing));
    }
    if (is_silent && waited >= silence(how) && is_first(launch.rank, missing)) {
      how.say_waiting("waiting for " + who + " at " + place_of(launch));
      is_silent = false;
    }
    std::this_thread::sleep_for(kLook);
  }
} catch (const NoAnswer& error) {
  throw StartFailure(error.what(), is_first(launch.rank, {0}));
}

/// The first line in which two texts differ, of each.
std::pair<std::string, std::string> first_difference(const std::string& a, const std::string& b) {
  std::istringstream lines_a(a), lines_b(b);
  std::string line_a, line_b;
  while (true) {
    const bool more_a = static_cast<bool>(std::getline(lines_a, line_a));
    const bool more_b = static_cast<bool>(std::getline(lines_b, line_b));
    if (!more_a) line_a = "(nothing)";
    if (!more_b) line_b = "(nothing)";
    if (!more_a || !more_b || line_a != line_b) return {line_a, line_b};
  }
}

/// c10d writes every failure, with C++ frames, before we see it. What we throw says more in fewer words.
void silence_c10d() {
  constexpr int kFatalOnly = 3;
  if (std::getenv("TORCH_CPP_LOG_LEVEL") == nullptr) FLAGS_caffe2_log_level = kFatalOnly;
}

}  // namespace

World::World(const Launch& launch, const WorldOptions& options) try
    : launch_(launch), options_(options), store_((silence_c10d(), connect(launch, options))) {
  wait_for_all(store_, "arrived", launch_, options_);
  texts_ = store_->clone();
  watch_ = std::make_unique<Watch>(store_, launch_.rank, launch_.world_size);
  if (options.device.is_cuda()) {
    lookout_ = std::make_unique<Lookout>(*watch_, options.device,
                                         LookoutOptions{.timeout = options.timeout, .say = options.say_failure});
  }
  wait_for_all(store_, "connected", launch_, options_);  // rank 0 may leave at once, with the store
  store_->setTimeout(options_.timeout);
} catch (const c10::Error& error) {
  throw std::runtime_error("rank " + std::to_string(launch.rank) + " has lost rank 0 at " + place_of(launch) +
                           ", where the ranks find one another, before all were there (" +
                           first_line(error.what_without_backtrace()) + ")");
}

/// What the store answers. One that does not, holds its connection for ever.
template <typename Question>
auto World::ask(Question question, std::chrono::milliseconds limit) const {
  if (is_silent_) throw NoAnswer();
  try {
    return answer_within(limit, std::move(question));
  } catch (const NoAnswer&) {
    is_silent_ = true;
    throw;
  }
}

World::~World() {
  lookout_.reset();
  watch_.reset();
  try {
    const auto count = [&](int64_t more) {
      return ask([store = store_, more] { return store->add("left", more); }, kLeaving);
    };
    const int64_t left = count(1);
    if (launch_.rank != 0 || launch_.launcher_hosts_store || left == launch_.world_size) return;
    const auto end = steady_clock::now() + kLeaving;
    while (count(0) < launch_.world_size && steady_clock::now() < end) std::this_thread::sleep_for(kLook);
  } catch (const std::exception&) {  // the store is gone: nobody is left to wait for
  }
}

bool World::has_said_failure() const { return lookout_ != nullptr && lookout_->has_said(); }

std::string World::recorded_collectives() const { return lighthouse::recorded_collectives(options_.device); }

void World::wait_for(const std::vector<std::string>& keys) {
  const auto end = steady_clock::now() + options_.timeout;
  while (!is_there(store_, keys)) {
    if (is_there(store_, {kAbandoned})) throw Disagreement(value_of(store_, kAbandoned));
    if (steady_clock::now() >= end) throw std::runtime_error("waited " + count_of("ms", options_.timeout.count()));
    std::this_thread::sleep_for(kLook);
  }
}

bool World::is_there(const Store& store, const std::vector<std::string>& keys) const {
  return ask([store, keys] { return store->check(keys); }, options_.timeout);
}

void World::set(const Store& store, const std::string& key, const std::string& value) const {
  ask([store, key, value] { store->set(key, bytes_of(value)); }, options_.timeout);
}

std::string World::value_of(const Store& store, const std::string& key) const {
  const std::vector<uint8_t> bytes = ask([store, key] { return store->get(key); }, options_.timeout);
  return {bytes.begin(), bytes.end()};
}

void World::abandon(const std::string& why) {
  try {
    set(store_, kAbandoned, "rank " + std::to_string(rank()) + " cannot start: " + why);
  } catch (const std::exception&) {  // nobody is there to be told
  }
}

void World::agree(const std::string& topic, const std::string& value) {
  watch_->enter("agreement on " + topic);
  std::vector<std::string> keys;
  for (int64_t of = 0; of < size(); ++of) keys.push_back("agree/" + topic + "/" + std::to_string(of));
  std::vector<int64_t> others;
  std::string of_first, of_other;
  try {
    set(store_, keys[static_cast<size_t>(rank())], value);
    wait_for(keys);
    of_first = value_of(store_, keys.front());
    for (int64_t other = 1; other < size(); ++other) {
      const std::string its = value_of(store_, keys[static_cast<size_t>(other)]);
      if (its == of_first) continue;
      if (others.empty()) of_other = its;
      others.push_back(other);
    }
  } catch (const Disagreement&) {
    throw;
  } catch (const std::exception& error) {
    fail_by_rank(watch_.get(), topic, error.what());
  }
  if (others.empty()) return;
  const auto [first, other] = first_difference(of_first, of_other);
  throw Disagreement("the ranks do not agree on " + topic + ": rank 0 has\n  " + first + "\n" + names_of(others) +
                     (others.size() == 1 ? " has" : " have") + "\n  " + other +
                     "\nstart all ranks with the same command, program and files");
}

void World::wait_while_all_live(const std::vector<std::string>& keys) {
  auto next_look = steady_clock::now() + kBetweenRounds;
  bool missed = false;  // a rank, at the last look: where the whole machine stood still, all seem to be lost once
  while (!is_there(texts_, keys)) {
    if (is_there(texts_, {kAbandoned})) throw Disagreement(value_of(texts_, kAbandoned));
    std::this_thread::sleep_for(kLook);
    if (steady_clock::now() < next_look) continue;
    const std::string lost = watch_->lost();
    if (!lost.empty() && missed) throw RankFailure("another rank is missing" + lost);
    missed = !lost.empty();
    next_look = steady_clock::now() + kBetweenRounds;
  }
}

std::string World::conclude(const std::string& text, const Conclude& conclude) try {
  const std::string place = "conclusion/" + std::to_string(num_conclusions_++) + "/";
  set(texts_, place + std::to_string(rank()), text);
  if (rank() != 0) {
    wait_while_all_live({place + "result"});
    return value_of(texts_, place + "result");
  }
  std::vector<std::string> keys, texts;
  for (int64_t of = 0; of < size(); ++of) keys.push_back(place + std::to_string(of));
  wait_while_all_live(keys);
  for (const std::string& key : keys) {
    texts.push_back(value_of(texts_, key));
    ask([store = texts_, key] { return store->deleteKey(key); }, options_.timeout);
  }
  const std::string result = conclude(texts);
  set(texts_, place + "result", result);
  return result;
} catch (const NoAnswer& error) {
  throw RankFailure(std::string("another rank is missing\n  ") + error.what());
}

std::unique_ptr<Group> World::make_group(const std::string& name, const std::vector<int64_t>& ranks) {
  const auto place = std::find(ranks.begin(), ranks.end(), rank());
  LIGHTHOUSE_CHECK(place != ranks.end() && std::is_sorted(ranks.begin(), ranks.end()), "group '", name, "': rank ",
                   rank(), " is not among its ranks, or they do not ascend");
  const int64_t own = place - ranks.begin();
  if (ranks.size() == 1) return std::make_unique<Group>();
  watch_->enter("start of the group '" + name + "'");
  try {
    store_->setTimeout(options_.patience);
    const auto store = c10::make_intrusive<c10d::PrefixStore>("group/" + name, store_);
    auto backend = make_backend(store, own, static_cast<int64_t>(ranks.size()), options_.device, launch_.address,
                                options_.patience);
    // To be waited for: Gloo takes its whole timeout to see that a rank is gone while they connect.
    std::vector<std::string> connected;
    for (size_t i = 0; i < ranks.size(); ++i) connected.push_back("connected/" + std::to_string(i));
    store->set(connected[static_cast<size_t>(own)], bytes_of("yes"));
    store->wait(connected);
    store_->setTimeout(options_.timeout);
    backend->setTimeout(lookout_ ? options_.timeout + kAfterLookout : options_.timeout);
    return std::make_unique<Group>(std::move(backend), ranks, own, watch_.get(), lookout_.get());
  } catch (const std::exception& error) {
    fail_by_rank(watch_.get(), name, error.what());
  }
}

}  // namespace lighthouse

// Collectives that do not end are named, though the host does not wait for them.
#include "parallel/lookout.h"

#include <gmock/gmock.h>

#include <unistd.h>

#include <atomic>
#include <csignal>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "cpp/parallel/ranks.h"
#include "lighthouse/check.h"
#include "parallel/watch.h"

namespace lighthouse {
namespace {

using parallel_test::Outcome;
using parallel_test::run_ranks;
using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;

/// As one on a GPU: it ends when it is told to.
struct Collective : c10d::Work {
  bool isCompleted() override { return ended; }
  bool isSuccess() const override { throw std::logic_error("as NCCL's work, which does not answer that"); }
  void fail(const std::string& why) {
    exception_ = std::make_exception_ptr(std::runtime_error(why));
    ended = true;
  }
  std::atomic<bool> ended = false;
};

/// What check says within `limit`; "" if nothing.
std::string failure_within(const Lookout& lookout, milliseconds limit) {
  const auto end = std::chrono::steady_clock::now() + limit;
  while (std::chrono::steady_clock::now() < end) {
    try {
      lookout.check();
    } catch (const RankFailure& failure) {
      return failure.what();
    }
    std::this_thread::sleep_for(milliseconds(20));
  }
  return "";
}

/// Rank 0 waits for a collective that does not end; what it is told, and whether it was let go.
std::vector<Outcome> wait_for(milliseconds timeout, milliseconds limit, const std::function<void()>& of_rank_1) {
  return run_ranks(2, [&](World& world) -> std::string {
    world.watch().set_place("step 3");
    world.watch().enter("totals of the step");
    if (world.rank() == 1) {
      of_rank_1();
      return "";
    }
    std::atomic<bool> aborted = false;
    Lookout lookout(world.watch(), c10::kCPU, {.timeout = timeout});
    lookout.on_failure([&] { aborted = true; });
    const auto ended = c10::make_intrusive<Collective>(), late = c10::make_intrusive<Collective>();
    lookout.follow(ended, "all-to-all of rows");
    lookout.follow(late, "all-gather of carried rows");
    ended->ended = true;
    const std::string failure = failure_within(lookout, limit);
    for (int i = 0; i < 100 && !aborted; ++i) std::this_thread::sleep_for(milliseconds(20));
    return failure + (aborted ? " | let go" : " | still waits");
  });
}

TEST(Lookout, NamesARankThatIsLostBeforeTheTimeout) {
  const auto outcomes = wait_for(milliseconds(60000), milliseconds(15000), [] { ::raise(SIGKILL); });
  EXPECT_THAT(outcomes[0].text,
              AllOf(HasSubstr("'step 3, totals of the step' failed"), HasSubstr("rank 1 is dead or stopped"),
                    HasSubstr("'all-gather of carried rows' has not ended"), HasSubstr("let go")));
}

TEST(Lookout, NamesACollectiveThatTakesTooLong) {
  const auto outcomes =
      wait_for(milliseconds(500), milliseconds(8000), [] { std::this_thread::sleep_for(milliseconds(6000)); });
  EXPECT_THAT(outcomes[0].text,
              AllOf(HasSubstr("all other ranks live"), HasSubstr("raise parallel.timeout"),
                    HasSubstr("'all-gather of carried rows' has not ended for"), HasSubstr("let go")));
}

TEST(Lookout, SaysWhatTheLibrarySays) {
  const auto outcomes = run_ranks(1, [](World& world) -> std::string {
    Lookout lookout(world.watch(), c10::kCPU, {.timeout = milliseconds(60000)});
    const auto work = c10::make_intrusive<Collective>();
    lookout.follow(work, "all-to-all of rows");
    if (!failure_within(lookout, milliseconds(300)).empty()) return "too early";
    work->fail("NCCL error: remote process exited\nframe #0");
    return failure_within(lookout, milliseconds(5000));
  });
  EXPECT_THAT(outcomes[0].text, HasSubstr("(NCCL error: remote process exited)"));
}

/// What nothing lets go of any more.
[[noreturn]] void stand_still() {
  while (true) std::this_thread::sleep_for(std::chrono::seconds(1));
}

struct Unanswered : c10d::Work {
  bool isCompleted() override { stand_still(); }
};

enum class Host { kChecks, kLeaves, kStandsStill };

/// One rank, whose collective does not answer and cannot be aborted; what the lookout says by itself.
std::string last_words(Host host, int exit_code) {
  const std::filesystem::path file =
      std::filesystem::temp_directory_path() / detail::concat("lookout_", ::getpid(), "_", static_cast<int>(host));
  const auto outcomes = run_ranks(1, [&](World& world) -> std::string {
    world.watch().set_place("step 3");
    world.watch().enter("sum of gradients");
    Lookout lookout(world.watch(), c10::kCPU,
                    {.timeout = milliseconds(300),
                     .grace = milliseconds(500),
                     .ending = milliseconds(1000),
                     .say = [&](const std::string& failure) { std::ofstream(file, std::ios::app) << failure; }});
    lookout.on_failure([] {});
    lookout.on_failure(stand_still);
    lookout.follow(c10::make_intrusive<Unanswered>(), "sum of gradients");
    if (host == Host::kStandsStill) stand_still();
    const std::string failure = failure_within(lookout, milliseconds(8000));
    if (host == Host::kChecks) ::_exit(lookout.has_said() || failure.empty() ? 3 : 0);
    return failure;
  });
  EXPECT_EQ(outcomes[0].exit_code, exit_code) << outcomes[0].text;
  EXPECT_LT(outcomes[0].seconds, 12) << "two seconds to see who lives, twice at most";
  std::ostringstream said;
  said << std::ifstream(file).rdbuf();
  std::filesystem::remove(file);
  return said.str();
}

TEST(Lookout, LeavesItToAHostThatIsLetGo) { EXPECT_EQ(last_words(Host::kChecks, 0), ""); }

TEST(Lookout, SpeaksForAHostThatIsNotLetGo) {
  EXPECT_THAT(last_words(Host::kStandsStill, 1),
              AllOf(HasSubstr("'step 3, sum of gradients' failed"), HasSubstr("has not ended for")));
}

TEST(Lookout, SpeaksForAHostThatCannotLeave) {
  EXPECT_THAT(last_words(Host::kLeaves, 1), HasSubstr("'step 3, sum of gradients' failed"));
}

}  // namespace
}  // namespace lighthouse

// A rank that is lost, or was started with something else, is named by the others.
#include <ATen/ops/empty.h>
#include <ATen/ops/ones.h>
#include <gmock/gmock.h>
#include <unistd.h>

#include <csignal>
#include <thread>

#include "cpp/parallel/ranks.h"
#include "parallel/free_port.h"
#include "parallel/watch.h"

namespace lighthouse {
namespace {

using parallel_test::Outcome;
using parallel_test::run_processes;
using parallel_test::run_ranks;
using ::testing::AllOf;
using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::chrono::milliseconds kTimeout{2500};
constexpr int64_t kLost = 1;

/// Three steps of a collective of three ranks; in the last one rank 1 is lost by `lose`.
std::vector<Outcome> lose_a_rank(const std::function<void(World&)>& lose) {
  return run_ranks(3,
                   [&](World& world) -> std::string {
                     const auto group = world.make_group("all", {0, 1, 2});
                     for (int step = 1; step <= 3; ++step) {
                       world.watch().set_place("step " + std::to_string(step));
                       if (step == 3 && world.rank() == kLost) lose(world);
                       const at::Tensor in = at::ones({3, 1024}), out = at::empty({3, 1024});
                       group->all_to_all({{out, in, {1, 1, 1}, {1, 1, 1}}}, "layer 7, all-to-all of rows").wait();
                     }
                     return "";
                   },
                   {.timeout = kTimeout, .limit = std::chrono::seconds(90)});
}

void expect_named(const std::vector<Outcome>& outcomes, const std::string& how) {
  for (const size_t rank : {0, 2}) {
    EXPECT_EQ(outcomes[rank].exit_code, 1);
    EXPECT_THAT(outcomes[rank].text, AllOf(HasSubstr("'step 3, layer 7, all-to-all of rows' failed"),
                                           HasSubstr("rank 1 " + how), Not(HasSubstr("\nframe"))))
        << outcomes[rank].text;
    EXPECT_LT(outcomes[rank].seconds, 2.5 + 5 + 4) << "the timeout, five seconds and the start";
  }
}

TEST(LostRanks, ThatWereKilledAreNamed) {
  expect_named(lose_a_rank([](World&) { ::raise(SIGKILL); }), "is dead or stopped; last seen in 'step 3");
}

TEST(LostRanks, ThatStoppedAreNamed) {
  expect_named(lose_a_rank([](World&) { ::raise(SIGSTOP); }), "is dead or stopped; last seen in 'step 3");
}

TEST(LostRanks, ThatDoSomethingElseAreNamedWithIt) {
  const auto outcomes = lose_a_rank([](World& world) {
    world.watch().enter("reading data");
    std::this_thread::sleep_for(std::chrono::seconds(8));
  });
  expect_named(outcomes, "lives, but is in 'step 3, reading data'");
}

TEST(LostRanks, AnErrorOfRankZeroIsNamedByTheOthersThoughItHostsTheStore) {
  const auto outcomes = run_ranks(3,
                                  [](World& world) -> std::string {
                                    const auto group = world.make_group("all", {0, 1, 2});
                                    world.watch().set_place("step 1");
                                    if (world.rank() == 0) throw std::runtime_error("out of memory");
                                    const at::Tensor in = at::ones({3, 4}), out = at::empty({3, 4});
                                    group->all_to_all({{out, in, {1, 1, 1}, {1, 1, 1}}}, "all-to-all of rows").wait();
                                    return "";
                                  },
                                  {.timeout = kTimeout, .limit = std::chrono::seconds(90)});
  EXPECT_EQ(outcomes[0].text, "out of memory");
  for (const size_t rank : {1, 2}) {
    EXPECT_THAT(outcomes[rank].text,
                AnyOf(HasSubstr("rank 0 is dead or stopped"), HasSubstr("rank 0, or the launcher")));
    EXPECT_LT(outcomes[rank].seconds, 2.5 + 5 + 4) << "the timeout, five seconds and the start of a busy machine";
  }
}

TEST(Starts, RanksThatDoNotComeAreNamed) {
  Launch launch;
  launch.world_size = 4;
  launch.port = free_port();
  const auto outcomes = run_processes(2, [&](int64_t rank) -> std::string {
    Launch mine = launch;
    mine.rank = rank;
    World world(mine, {.timeout = kTimeout, .patience = kTimeout});
    return "";
  });
  EXPECT_THAT(outcomes[0].text, AllOf(HasSubstr("ranks 2, 3 of 4 did not start within 2 s")));
}

TEST(Starts, APortThatIsTakenIsNamed) {
  Launch launch;
  launch.world_size = 2;
  launch.port = free_port();
  const auto outcomes = run_processes(2, [&](int64_t) -> std::string {
    World world(launch, {.timeout = kTimeout, .patience = kTimeout});  // both are rank 0
    return "";
  });
  const std::string both = outcomes[0].text + outcomes[1].text;
  EXPECT_THAT(both,
              AllOf(HasSubstr("rank 0 cannot open port " + std::to_string(launch.port)), HasSubstr("take another")));
}

TEST(Starts, AnAddressThatDoesNotAnswerIsNamed) {
  Launch launch;
  launch.world_size = 2;
  launch.rank = 1;
  launch.port = free_port();
  const auto outcomes = run_processes(1, [&](int64_t) -> std::string {
    World world(launch, {.timeout = kTimeout, .patience = kTimeout});
    return "";
  });
  EXPECT_THAT(outcomes[0].text, AllOf(HasSubstr("rank 1 cannot reach rank 0 at 127.0.0.1:"), HasSubstr("MASTER_PORT")));
}

TEST(Agreements, HoldOrNameLineAndRanks) {
  const auto outcomes = run_ranks(4, [](World& world) -> std::string {
    world.agree("the program", "lighthouse 0.1.0");
    world.agree("the configuration", world.rank() < 2 ? "seed = 1\nsteps = 10" : "seed = 1\nsteps = 12");
    return "agreed";
  });
  for (const Outcome& outcome : outcomes) {
    EXPECT_EQ(outcome.exit_code, 1);
    EXPECT_THAT(outcome.text, AllOf(HasSubstr("do not agree on the configuration"),
                                    HasSubstr("rank 0 has\n  steps = 10"), HasSubstr("ranks 2, 3 have\n  steps = 12")));
  }
}

TEST(Agreements, EndWhereARankCannotStart) {
  const auto outcomes = run_ranks(3, [](World& world) -> std::string {
    if (world.rank() == 1) {
      world.abandon("no corpus");
      return "abandoned";
    }
    world.agree("the corpus", "a corpus");
    return "agreed";
  });
  EXPECT_EQ(outcomes[1].text, "abandoned");
  for (const size_t rank : {0, 2}) EXPECT_EQ(outcomes[rank].text, "rank 1 cannot start: no corpus");
}

TEST(Conclusions, OfTheFirstRankAreEveryones) {
  const auto outcomes = run_ranks(3, [](World& world) -> std::string {
    std::string all;
    for (int turn = 0; turn < 3; ++turn) {
      const std::string mine = std::to_string(10 * turn + world.rank());
      all += world.conclude(mine, [](const std::vector<std::string>& texts) {
        std::string joined;
        for (const std::string& text : texts) joined += text + " ";
        return joined + "| ";
      });
    }
    return all;
  });
  for (const Outcome& outcome : outcomes) EXPECT_EQ(outcome.text, "0 1 2 | 10 11 12 | 20 21 22 | ");
}

TEST(Conclusions, NameARankThatIsLost) {
  const auto outcomes = run_ranks(3, [](World& world) -> std::string {
    world.watch().set_place("step 3");
    if (world.rank() == kLost) ::kill(::getpid(), SIGKILL);
    return world.conclude("here", [](const std::vector<std::string>&) { return std::string("all are here"); });
  });
  for (const size_t rank : {0, 2}) {
    EXPECT_THAT(outcomes[rank].text, AllOf(HasSubstr("rank 1 is dead or stopped"), HasSubstr("step 3")));
  }
}

}  // namespace
}  // namespace lighthouse

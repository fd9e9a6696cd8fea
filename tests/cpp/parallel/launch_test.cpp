// What launchers set, and what contradicts.
#include "parallel/launch.h"

#include <gmock/gmock.h>

#include <map>

#include "lighthouse/check.h"
#include "parallel/free_port.h"

namespace lighthouse {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using Variables = std::map<std::string, std::string>;

GetVariable lookup_in(const Variables& variables) {
  return [&](const char* name) -> const char* {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second.c_str();
  };
}

std::optional<Launch> launch_of(const Variables& variables) { return launch_from(lookup_in(variables)); }

std::string refusal(const Variables& variables) {
  try {
    launch_of(variables);
  } catch (const InvalidArgument& error) {
    return error.what();
  }
  return "accepted";
}

TEST(FreePort, LiesBelowThoseOfConnections) {
  for (int i = 0; i < 100; ++i) {
    const uint16_t port = free_port();
    EXPECT_GE(port, 20'000);
    EXPECT_LT(port, 32'768);
  }
}

TEST(Launch, NoneWithoutALauncher) {
  EXPECT_FALSE(launch_of({}));
  EXPECT_FALSE(launch_of({{"MASTER_ADDR", "node1"}, {"MASTER_PORT", "1234"}}));
  EXPECT_FALSE(launch_of({{"SLURM_PROCID", "0"}, {"SLURM_NTASKS", "8"}, {"SLURM_JOB_ID", "5"}}));  // a batch script
}

TEST(Launch, OfTorchrun) {
  const auto launch = launch_of({{"RANK", "5"},
                                 {"WORLD_SIZE", "8"},
                                 {"LOCAL_RANK", "1"},
                                 {"LOCAL_WORLD_SIZE", "4"},
                                 {"MASTER_ADDR", "node1"},
                                 {"MASTER_PORT", "1234"},
                                 {"TORCHELASTIC_USE_AGENT_STORE", "True"},
                                 {"TORCHELASTIC_RESTART_COUNT", "2"}});
  ASSERT_TRUE(launch);
  EXPECT_EQ(launch->rank, 5);
  EXPECT_EQ(launch->world_size, 8);
  EXPECT_EQ(launch->local_rank, 1);
  EXPECT_EQ(launch->local_world_size, 4);
  EXPECT_EQ(launch->address, "node1");
  EXPECT_EQ(launch->port, 1234);
  EXPECT_TRUE(launch->launcher_hosts_store);
  EXPECT_EQ(launch->attempt, "2");
}

TEST(Launch, OfAnyLauncherOfOneMachine) {
  const auto launch = launch_of({{"RANK", "1"}, {"WORLD_SIZE", "2"}});
  ASSERT_TRUE(launch);
  EXPECT_EQ(launch->local_rank, 1);
  EXPECT_EQ(launch->local_world_size, 2);
  EXPECT_EQ(launch->address, "127.0.0.1");
  EXPECT_FALSE(launch->launcher_hosts_store);
}

TEST(Launch, OfSlurm) {
  const Variables variables = {{"SLURM_PROCID", "9"},
                               {"SLURM_STEP_NUM_TASKS", "12"},
                               {"SLURM_LOCALID", "1"},
                               {"SLURM_STEP_TASKS_PER_NODE", "8,4"},
                               {"SLURM_STEP_NODELIST", "gpu[07-08]"},
                               {"SLURM_JOB_ID", "123456"}};
  const auto launch = launch_of(variables);
  ASSERT_TRUE(launch);
  EXPECT_EQ(launch->rank, 9);
  EXPECT_EQ(launch->world_size, 12);
  EXPECT_EQ(launch->local_rank, 1);
  EXPECT_EQ(launch->local_world_size, 8);
  EXPECT_EQ(launch->address, "gpu07");
  EXPECT_EQ(launch->port, 23456);
  Variables moved = variables;
  moved["MASTER_ADDR"] = "10.0.0.1";
  moved["MASTER_PORT"] = "9999";
  EXPECT_EQ(launch_of(moved)->address, "10.0.0.1");
  EXPECT_EQ(launch_of(moved)->port, 9999);
}

TEST(Launch, FirstHosts) {
  EXPECT_EQ(first_host("node003"), "node003");
  EXPECT_EQ(first_host("node003,node007"), "node003");
  EXPECT_EQ(first_host("node[003-006,9],other"), "node003");
  EXPECT_EQ(first_host("node[3,9]"), "node3");
  EXPECT_EQ(first_host("node[3]"), "node3");
}

TEST(Launch, NamesWhatIsMissingOrContradicts) {
  EXPECT_THAT(refusal({{"RANK", "1"}}), AllOf(HasSubstr("RANK is set"), HasSubstr("WORLD_SIZE is not")));
  EXPECT_THAT(refusal({{"WORLD_SIZE", "2"}}), AllOf(HasSubstr("WORLD_SIZE is set"), HasSubstr("RANK is not")));
  EXPECT_THAT(refusal({{"RANK", "2"}, {"WORLD_SIZE", "2"}}), AllOf(HasSubstr("RANK = '2'"), HasSubstr("0 to 1")));
  EXPECT_THAT(refusal({{"RANK", "-1"}, {"WORLD_SIZE", "2"}}), HasSubstr("RANK = '-1'"));
  EXPECT_THAT(refusal({{"RANK", "0"}, {"WORLD_SIZE", "two"}}), HasSubstr("WORLD_SIZE = 'two'"));
  EXPECT_THAT(refusal({{"RANK", "0"}, {"WORLD_SIZE", "0"}}), HasSubstr("WORLD_SIZE = '0'"));
  EXPECT_THAT(refusal({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "2"}}), HasSubstr("LOCAL_RANK = '2'"));
  EXPECT_THAT(refusal({{"RANK", "0"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "70000"}}),
              AllOf(HasSubstr("MASTER_PORT = '70000'"), HasSubstr("65535")));
  EXPECT_THAT(refusal({{"SLURM_STEP_NUM_TASKS", "4"}}), HasSubstr("SLURM_PROCID is not"));
}

TEST(Launch, KnowsWhatTheFirstProcessWillSayOfWrongVariables) {
  const auto by_first = [](const Variables& variables) { return is_found_by_first(lookup_in(variables)); };
  EXPECT_TRUE(by_first({{"RANK", "3"}}));
  EXPECT_TRUE(by_first({{"RANK", "3"}, {"WORLD_SIZE", "two"}}));
  EXPECT_TRUE(by_first({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"MASTER_PORT", "70000"}}));
  EXPECT_TRUE(by_first({{"SLURM_PROCID", "10"}, {"SLURM_STEP_NUM_TASKS", "x"}}));
  for (const char* rank : {"0", "00", "", "-1", "x", "1x"}) EXPECT_FALSE(by_first({{"RANK", rank}})) << rank;
  EXPECT_FALSE(by_first({{"RANK", "0"}, {"SLURM_PROCID", "5"}}));
  EXPECT_FALSE(by_first({}));
}

// They ended with exit code 2 and without a word.
TEST(Launch, KnowsWhatIsWrongWithOneProcessAlone) {
  const auto by_first = [](const Variables& variables) { return is_found_by_first(lookup_in(variables)); };
  EXPECT_FALSE(by_first({{"RANK", "5"}, {"WORLD_SIZE", "2"}}));
  EXPECT_FALSE(by_first({{"RANK", "1"}, {"WORLD_SIZE", "2"}, {"LOCAL_RANK", "2"}}));
  EXPECT_FALSE(by_first({{"SLURM_PROCID", "4"}, {"SLURM_STEP_NUM_TASKS", "4"}, {"SLURM_LOCALID", "0"}}));
}

}  // namespace
}  // namespace lighthouse

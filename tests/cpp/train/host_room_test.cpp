#include "train/host_room.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "support/message_of.h"

namespace lighthouse {
namespace {
using ::testing::MatchesRegex;

TEST(HostRoom, SaysWhatIsFreeAndWhatWouldDo) {
  EXPECT_NO_THROW(check_host_room(1, "for a byte", "take a bit"));
  const auto message =
      message_of<std::runtime_error>([] { check_host_room(int64_t{1} << 60, "for a test", "take less"); });
  EXPECT_THAT(message, MatchesRegex("no [0-9.]+TB of host memory for a test \\([0-9.]+[kMG]?B are free\\); take less"));
}

}  // namespace
}  // namespace lighthouse

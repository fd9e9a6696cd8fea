#include "train/device_memory.h"

#include <c10/core/AllocatorConfig.h>
#include <gtest/gtest.h>

#include <array>
#include <cstdlib>

namespace lighthouse {
namespace {

constexpr std::array kVariables = {"PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"};

class SegmentsTest : public testing::Test {
 protected:
  void SetUp() override { forget(); }
  void TearDown() override { forget(); }

 private:
  static void forget() {
    for (const char* name : kVariables) ::unsetenv(name);
    c10::CachingAllocator::setAllocatorSettings("expandable_segments:False");
  }
};

TEST_F(SegmentsTest, Expand) {
  EXPECT_FALSE(segments_expand());
  expand_segments();
  EXPECT_TRUE(segments_expand());
}

TEST_F(SegmentsTest, AreTheUsersWhereTheEnvironmentSaysHow) {
  for (const char* name : kVariables) {
    ::setenv(name, "max_split_size_mb:512", 1);
    expand_segments();
    EXPECT_FALSE(segments_expand()) << name;
    ::unsetenv(name);
  }
}

}  // namespace
}  // namespace lighthouse

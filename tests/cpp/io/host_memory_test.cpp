#include "io/host_memory.h"

#include <gtest/gtest.h>

#include <fstream>

#include "cpp/io/temporary_folder.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kMiB = 1 << 20;

class HostMemoryTest : public ::testing::Test {
 protected:
  void write(const fs::path& file, const std::string& text) const {
    fs::create_directories((root_.path() / file).parent_path());
    std::ofstream(root_.path() / file) << text;
  }
  void write_machine() const {
    write("proc/meminfo", "MemTotal:        1048576 kB\nMemFree:          100 kB\nMemAvailable:     524288 kB\n");
  }
  HostMemory found() const { return host_memory(root_.path()).value(); }

  TemporaryFolder root_;
};

TEST_F(HostMemoryTest, IsThatOfTheMachine) {
  EXPECT_EQ(host_memory(root_.path()), std::nullopt);
  write_machine();
  EXPECT_EQ(found().total, 1024 * kMiB);
  EXPECT_EQ(found().available, 512 * kMiB);
}

// What files take of it in the system's cache is given up.
TEST_F(HostMemoryTest, IsNoMoreThanThatOfTheControlGroup) {
  write_machine();
  write("proc/self/cgroup", "0::/batch/job\n");
  write("sys/fs/cgroup/batch/job/memory.max", "max\n");
  write("sys/fs/cgroup/batch/memory.max", std::to_string(256 * kMiB) + "\n");
  write("sys/fs/cgroup/batch/memory.current", std::to_string(200 * kMiB) + "\n");
  write("sys/fs/cgroup/batch/memory.stat",
        "anon 1\ninactive_file " + std::to_string(30 * kMiB) + "\nactive_file " + std::to_string(20 * kMiB) + "\n");
  EXPECT_EQ(found().total, 256 * kMiB);
  EXPECT_EQ(found().available, 106 * kMiB);
}

TEST_F(HostMemoryTest, KnowsTheFirstInterfaceAndATopThatIsTheGroupItself) {
  write_machine();
  write("proc/self/cgroup", "9:name=systemd:/\n4:cpu,memory:/docker/0123\n0::/\n");
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(128 * kMiB) + "\n");
  write("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(130 * kMiB) + "\n");
  EXPECT_EQ(found().total, 128 * kMiB);
  EXPECT_EQ(found().available, 0);
  write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");  // none is set
  EXPECT_EQ(found().total, 1024 * kMiB);
  EXPECT_EQ(found().available, 512 * kMiB);
}

TEST_F(HostMemoryTest, WhatIsNotANumberIsNoLimit) {
  write_machine();
  write("proc/self/cgroup", "no group\n0::/../..\n::\n");
  write("sys/fs/cgroup/memory.max", "");
  EXPECT_EQ(found().available, 512 * kMiB);
}

TEST(HostMemory, OfThisMachineIsSome) {
  const auto memory = host_memory();
  ASSERT_TRUE(memory);
  EXPECT_GT(memory->total, 0);
  EXPECT_LE(memory->available, memory->total);
}

}  // namespace
}  // namespace lighthouse

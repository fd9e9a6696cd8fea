#include "io/atomic_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <system_error>

#include "cpp/io/temporary_folder.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::HasSubstr;

TEST(AtomicFolder, AppearsOnCommitOnly) {
  const TemporaryFolder folder;
  {
    AtomicFolder made(folder / "target/");
    write_bytes(made.path() / "sub/file", "content");
    EXPECT_FALSE(fs::exists(folder / "target"));
    made.commit();
  }
  EXPECT_EQ(read_bytes(folder / "target/sub/file"), "content");
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

TEST(AtomicFolder, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  {
    const AtomicFolder made(folder / "target");
    write_bytes(made.path() / "file", "content");
  }
  EXPECT_EQ(count_entries(folder.path()), 0U);
}

TEST(AtomicFolder, ReplacesAnExistingFolderWhole) {
  const TemporaryFolder folder;
  write_bytes(folder / "target/old", "old");
  write_bytes(folder / "target.replaced/older", "left by a crash");
  AtomicFolder made(folder / "target");
  write_bytes(made.path() / "new", "new");
  made.commit();
  EXPECT_EQ(read_bytes(folder / "target/new"), "new");
  EXPECT_EQ(count_entries(folder / "target"), 1U);
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

TEST(AtomicFolder, DoesNotReplaceAFile) {
  const TemporaryFolder folder;
  write_bytes(folder / "target", "a file of the user");
  AtomicFolder made(folder / "target");
  EXPECT_THAT(message_of<std::system_error>([&] { made.commit(); }), HasSubstr("target"));
  EXPECT_EQ(read_bytes(folder / "target"), "a file of the user");
}

TEST(AtomicFolder, NamesPathAndReason) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<std::system_error>([&] { AtomicFolder(folder / "absent/target"); }), HasSubstr("absent"));
}

TEST(RemoveFolder, RemovesAllOrComplains) {
  const TemporaryFolder folder;
  write_bytes(folder / "target/sub/file", "content");
  remove_folder(folder / "target");
  EXPECT_EQ(count_entries(folder.path()), 0U);
  EXPECT_THAT(message_of<std::system_error>([&] { remove_folder(folder / "target"); }), HasSubstr("target"));
  EXPECT_EQ(count_entries(folder.path()), 0U);
}

}  // namespace
}  // namespace lighthouse

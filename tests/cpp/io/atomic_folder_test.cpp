#include "io/atomic_folder.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <optional>
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
  AtomicFolder made(folder / "target", Filling::kAlone, Replaced::kNamed);
  write_bytes(made.path() / "new", "new");
  made.commit();
  EXPECT_EQ(read_bytes(folder / "target/new"), "new");
  EXPECT_EQ(count_entries(folder / "target"), 1U);
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

// A folder of the user's of that name was removed.
TEST(AtomicFolder, LeavesWhatHasTheNameOfOneReplaced) {
  const TemporaryFolder folder;
  write_bytes(folder / "target.replaced/mine", "of the user");
  for (const char* content : {"first", "second"}) {
    AtomicFolder made(folder / "target");
    write_bytes(made.path() / content, content);
    made.commit();
    EXPECT_EQ(read_bytes(folder / "target" / content), content);
    EXPECT_EQ(count_entries(folder / "target"), 1U);
    EXPECT_EQ(read_bytes(folder / "target.replaced/mine"), "of the user");
    EXPECT_EQ(count_entries(folder.path()), 2U);
  }
}

TEST(AtomicFolder, DoesNotReplaceAFile) {
  const TemporaryFolder folder;
  write_bytes(folder / "target", "a file of the user");
  AtomicFolder made(folder / "target");
  EXPECT_THAT(message_of<std::system_error>([&] { made.commit(); }), HasSubstr("target"));
  EXPECT_EQ(read_bytes(folder / "target"), "a file of the user");
}

// The link was renamed, and could not be removed afterwards: the export failed, and every later one.
TEST(AtomicFolder, ALinkStandsForItsFolder) {
  const TemporaryFolder folder;
  write_bytes(folder / "disk/real/old", "old");
  fs::create_directory_symlink("disk/real", folder / "link");
  for (const char* name : {"link", "link/"}) {
    AtomicFolder made(folder / name);
    write_bytes(made.path() / "new", name);
    made.commit();
    EXPECT_EQ(read_bytes(folder / "disk/real/new"), name);
  }
  EXPECT_TRUE(fs::is_symlink(folder / "link"));
  EXPECT_EQ(count_entries(folder / "disk/real"), 1U);
  EXPECT_EQ(count_entries(folder / "disk"), 1U);
  EXPECT_EQ(count_entries(folder.path()), 2U);
}

TEST(AtomicFolder, DoesNotReplaceALinkToNoFolder) {
  const TemporaryFolder folder;
  fs::create_directory_symlink("absent", folder / "link");
  EXPECT_THAT(message_of<std::system_error>([&] { AtomicFolder(folder / "link"); }), HasSubstr("link'"));
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

TEST(AtomicFolder, IsFilledBySeveralProcesses) {
  const TemporaryFolder folder;
  std::optional<AtomicFolder> leading(std::in_place, folder / "target", Filling::kLeading);
  write_bytes(leading->path() / "a", "a");
  const auto help = [&] {
    const AtomicFolder helping(folder / "target", Filling::kHelping);
    write_bytes(helping.path() / "b", "b");
    return helping.path().string();
  };
  EXPECT_EQ(run_in_child(help), leading->path());
  leading->commit();
  EXPECT_EQ(read_bytes(folder / "target/a") + read_bytes(folder / "target/b"), "ab");
  leading.reset();
  EXPECT_EQ(count_entries(folder.path()), 1U);

  help();
  EXPECT_EQ(count_entries(folder.path()), 2U) << "it is the leader's to remove";
  { const AtomicFolder failed(folder / "target", Filling::kLeading); }
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

TEST(AtomicFolder, OfSeveralIsAbandonedWhenAllAreDead) {
  const TemporaryFolder folder;
  run_in_child([&] {
    const AtomicFolder died(folder / "target", Filling::kHelping);
    return std::string();
  });
  {
    const AtomicFolder living(folder / "target", Filling::kHelping);
    remove_abandoned_temporaries(folder.path());
    EXPECT_EQ(count_entries(folder.path()), 1U);
  }
  remove_abandoned_temporaries(folder.path());
  EXPECT_EQ(count_entries(folder.path()), 0U);
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

TEST(RemoveFolder, OfALinkRemovesTheLink) {
  const TemporaryFolder folder;
  write_bytes(folder / "real/file", "content");
  fs::create_directory_symlink("real", folder / "link");
  remove_folder(folder / "link");
  EXPECT_EQ(read_bytes(folder / "real/file"), "content");
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

}  // namespace
}  // namespace lighthouse

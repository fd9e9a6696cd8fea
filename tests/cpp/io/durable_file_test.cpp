#include "io/durable_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <csignal>
#include <system_error>

#include "cpp/io/temporary_folder.h"
#include "io/errors.h"
#include "io/input_file.h"
#include "io/posix.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

TEST(DurableFile, WritesAndReplaces) {
  const TemporaryFolder folder;
  const fs::path path = folder / "note.txt";
  for (const std::string text : {"first", "second, longer", ""}) {
    const FileSummary summary = write_file_durably(path, text);
    EXPECT_EQ(read_text_file(path), text);
    EXPECT_EQ(summary.bytes, static_cast<int64_t>(text.size()));
    EXPECT_EQ(summary.checksum, checksum(std::as_bytes(std::span(text))));
  }
  EXPECT_EQ(count_entries(folder.path()), 1U);
}

TEST(DurableFile, LeavesNothingWithoutCommit) {
  const TemporaryFolder folder;
  write_bytes(folder / "note.txt", "old");
  {
    DurableFile file(folder / "note.txt");
    file.write(std::as_bytes(std::span("new")));
    EXPECT_EQ(count_entries(folder.path()), 2U);
  }
  EXPECT_EQ(count_entries(folder.path()), 1U);
  EXPECT_EQ(read_bytes(folder / "note.txt"), "old");
}

TEST(DurableFile, NamesPathAndReason) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", "x");
  fs::create_directory(folder / "folder");
  write_bytes(folder / "folder/inside", "x");
  const auto error_at = [](const fs::path& path) {
    return message_of<std::system_error>([&] { write_file_durably(path, "text"); });
  };
  EXPECT_THAT(error_at(folder / "missing/note"), AllOf(HasSubstr("missing"), HasSubstr("No such file")));
  EXPECT_THAT(error_at(folder / "file/note"), AllOf(HasSubstr("file"), HasSubstr("Not a directory")));
  EXPECT_THAT(error_at(folder / "folder"), AllOf(HasSubstr("folder"), HasSubstr("Is a directory")));
  EXPECT_THAT(error_at("/proc/note"), HasSubstr("'/proc/"));
  EXPECT_EQ(count_entries(folder.path()), 2U);
}

TEST(OwnFile, IsARegularFileAndNoLink) {
  const TemporaryFolder folder;
  write_bytes(folder / "users-own", "precious");
  fs::create_symlink("users-own", folder / "link");
  fs::create_symlink("absent", folder / "dangling");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  const auto error_at = [&](const char* name) {
    return message_of<std::runtime_error>([&] { open_own_file(folder / name, O_RDWR); });
  };
  EXPECT_THAT(error_at("link"), AllOf(HasSubstr("link' is a symbolic link"), HasSubstr("remove the link")));
  EXPECT_THAT(error_at("dangling"), HasSubstr("dangling' is a symbolic link"));
  EXPECT_THAT(error_at("pipe"), HasSubstr("pipe' is not a regular file"));
  fs::create_hard_link(folder / "users-own", folder / "hard");
  EXPECT_THAT(error_at("hard"), HasSubstr("hard' has another name too (a hard link)"));
  EXPECT_EQ(read_bytes(folder / "users-own"), "precious");
  EXPECT_FALSE(fs::exists(folder / "absent"));
  EXPECT_GE(open_own_file(folder / "new", O_RDWR).get(), 0);
  EXPECT_GE(open_own_file(folder / "new", O_RDWR).get(), 0);
}

TEST(InputFile, RefusesWhatIsNoRegularFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<std::system_error>([&] { InputFile(folder / "absent"); }), HasSubstr("absent"));
  EXPECT_THAT(message_of<DamagedFile>([&] { InputFile{folder.path()}; }), HasSubstr("not a regular file"));
  EXPECT_THAT(message_of<DamagedFile>([&] { InputFile("/dev/zero"); }), HasSubstr("not a regular file"));
  write_bytes(folder / "empty", "");
  EXPECT_EQ(InputFile(folder / "empty").size(), 0);
  EXPECT_TRUE(read_file(folder / "empty").empty());
}

TEST(InputFile, FileThatIsCutShortIsAnError) {
  const TemporaryFolder folder;
  write_bytes(folder / "file", std::string(100'000, 'x'));
  const InputFile file(folder / "file");
  std::vector<std::byte> bytes(1000);
  fs::resize_file(folder / "file", 50'500);
  EXPECT_NO_THROW(file.read(49'500, bytes));
  EXPECT_THAT(message_of<DamagedFile>([&] { file.read(50'000, bytes); }),
              HasSubstr("file' had 100000 bytes when it was opened and has 50500 now"));
  EXPECT_THAT(message_of<DamagedFile>([&] { summarize(file); }), HasSubstr("50500 now"));
}

TEST(Folders, AreCreatedWithTheirParents) {
  const TemporaryFolder folder;
  create_folders_durably(folder / "a/b/c");
  create_folders_durably(folder / "a/b/c/");  // again
  EXPECT_TRUE(fs::is_directory(folder / "a/b/c"));
  write_bytes(folder / "file", "x");
  EXPECT_THAT(message_of<std::system_error>([&] { create_folders_durably(folder / "file/sub"); }),
              AllOf(HasSubstr("file"), HasSubstr("Not a directory")));
}

TEST(Temporaries, OnlyThoseOfDeadProcessesAreRemoved) {
  const TemporaryFolder folder;
  const Temporary living_file = create_temporary_file(folder.path());
  const Temporary living_folder = create_temporary_folder(folder.path());
  const std::string dead = run_in_child([&] {
    const Temporary file = create_temporary_file(folder.path());
    const Temporary made = create_temporary_folder(folder.path());
    write_bytes(made.path / "part", "half a checkpoint");
    return std::string();
  });
  ASSERT_EQ(dead, "");
  write_bytes(folder / "users-own", "x");
  ASSERT_EQ(count_entries(folder.path()), 5U);
  remove_abandoned_temporaries(folder.path());
  EXPECT_EQ(count_entries(folder.path()), 3U);
  EXPECT_TRUE(fs::exists(living_file.path));
  EXPECT_TRUE(fs::exists(living_folder.path));
  EXPECT_TRUE(fs::exists(folder / "users-own"));
  remove_abandoned_temporaries(folder / "absent");  // does nothing
}

}  // namespace
}  // namespace lighthouse

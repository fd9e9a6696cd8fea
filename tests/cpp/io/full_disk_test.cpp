#include "cpp/io/full_disk.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <system_error>

#include "io/atomic_folder.h"
#include "io/safetensors.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr size_t kBytes = size_t{1} << 20;

/// Tries to replace FOLDER/weights by a larger file; what was said, and whether the folder is as it was.
std::string try_to_write(const fs::path& folder) {
  const std::vector<std::byte> data(kBytes);
  std::string said = "nothing";
  try {
    write_safetensors(folder / "weights", {{"w", "U8", {static_cast<int64_t>(kBytes)}, data}});
  } catch (const std::system_error& error) {
    said = error.what();
  }
  const bool untouched = count_entries(folder) == 1 && read_bytes(folder / "weights") == "old";
  return said + (untouched ? " (folder untouched)" : " (folder changed)");
}

TEST(FullDisk, FileTooLargeLeavesNoPart) {
  const TemporaryFolder folder;
  write_bytes(folder / "weights", "old");
  EXPECT_THAT(run_with_small_files(kBytes / 2, [&] { return try_to_write(folder.path()); }),
              AllOf(HasSubstr("weights"), HasSubstr("File too large"), HasSubstr("(folder untouched)")));
}

TEST(FullDisk, NoSpaceLeavesNoPart) {
  const TemporaryFolder folder;
  const std::string result = run_on_small_disk(folder.path(), kBytes / 2, [&] {
    write_bytes(folder / "weights", "old");
    return try_to_write(folder.path());
  });
  if (result == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(result, AllOf(HasSubstr("weights"), HasSubstr("No space left"), HasSubstr("(folder untouched)")));
}

TEST(FullDisk, FolderThatDoesNotFitLeavesNothing) {
  const TemporaryFolder folder;
  const std::string result = run_on_small_disk(folder.path(), kBytes / 2, [&] {
    try {
      AtomicFolder made(folder / "target");
      write_file_durably(made.path() / "small", "x");
      write_file_durably(made.path() / "large", std::string(kBytes, 'x'));
      made.commit();
    } catch (const std::system_error& error) {
      return error.what() + std::string(count_entries(folder.path()) == 0 ? " (nothing left)" : " (something left)");
    }
    return std::string("committed");
  });
  if (result == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(result, AllOf(HasSubstr("large"), HasSubstr("No space left"), HasSubstr("(nothing left)")));
}

TEST(ReadOnlyDisk, IsNamed) {
  const TemporaryFolder folder;
  const std::string result = run_on_read_only_disk(
      folder.path(), [&] { write_bytes(folder / "weights", "old"); }, [&] { return try_to_write(folder.path()); });
  if (result == kNoMount) GTEST_SKIP() << kNoMount;
  EXPECT_THAT(result, AllOf(HasSubstr(folder.path().string()), HasSubstr("Read-only file system"),
                            HasSubstr("(folder untouched)")));
}

}  // namespace
}  // namespace lighthouse

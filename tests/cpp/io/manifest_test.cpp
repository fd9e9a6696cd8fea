#include "io/manifest.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/io/temporary_folder.h"
#include "io/errors.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

Manifest example() {
  Manifest manifest;
  manifest.step = 7;
  manifest.files.resize(2);
  manifest.files[0].name = "model.safetensors";
  manifest.files[0].summary.bytes = 100;
  manifest.files[0].summary.checksum = "abcd";
  manifest.files[0].tensors.push_back({"w", "F32", {2, 3}, 24, "00ff"});
  manifest.files[1].name = "state.json";
  manifest.files[1].summary.bytes = 2;
  return manifest;
}

TEST(Manifest, RoundTrip) {
  const TemporaryFolder folder;
  write_manifest(folder.path(), example());
  const Manifest found = read_manifest(folder.path());
  EXPECT_EQ(found.step, 7);
  ASSERT_EQ(found.files.size(), 2U);
  EXPECT_EQ(found.files[0].name, "model.safetensors");
  EXPECT_EQ(found.files[0].summary.bytes, 100);
  EXPECT_EQ(found.files[0].summary.checksum, "abcd");
  ASSERT_EQ(found.files[0].tensors.size(), 1U);
  EXPECT_EQ(found.files[0].tensors[0].shape, (std::vector<int64_t>{2, 3}));
  EXPECT_EQ(found.files[0].tensors[0].checksum, "00ff");
  EXPECT_TRUE(found.files[1].tensors.empty());
}

TEST(Manifest, RefusesOtherFormatsAndDamage) {
  const TemporaryFolder folder;
  const auto error_with = [&](const std::string& text) {
    write_bytes(folder / "manifest.json", text);
    return message_of<DamagedFile>([&] { read_manifest(folder.path()); });
  };
  EXPECT_THAT(message_of<DamagedFile>([&] { read_manifest(folder.path()); }), HasSubstr("partial"));
  EXPECT_THAT(error_with(""), HasSubstr("manifest.json"));
  EXPECT_THAT(error_with("[]"), HasSubstr("manifest.json"));
  EXPECT_THAT(error_with(R"({"format":"other","version":1,"step":1,"files":[]})"), HasSubstr("other"));
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":2,"step":1,"files":[]})"),
              AllOf(HasSubstr("version 2"), HasSubstr("reads version 1")));
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":1,"step":"1","files":[]})"),
              HasSubstr("manifest.json"));
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":1,"step":1,"files":[{"name":"x"}]})"),
              HasSubstr("bytes"));
}

TEST(Manifest, FindsFilesOfAnotherSize) {
  const TemporaryFolder folder;
  write_bytes(folder / "model.safetensors", std::string(100, 'x'));
  EXPECT_THAT(message_of<DamagedFile>([&] { check_file_sizes(folder.path(), example()); }), HasSubstr("state.json"));
  write_bytes(folder / "state.json", "{}");
  EXPECT_NO_THROW(check_file_sizes(folder.path(), example()));
  write_bytes(folder / "state.json", "{} ");
  EXPECT_THAT(message_of<DamagedFile>([&] { check_file_sizes(folder.path(), example()); }),
              AllOf(HasSubstr("state.json"), HasSubstr("3 bytes")));
}

}  // namespace
}  // namespace lighthouse

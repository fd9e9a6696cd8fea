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
  manifest.files[0].tensors.push_back({"w", "F32", {2, 3}, 24, "00ff", {}});
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
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":3,"step":1,"files":[]})"),
              AllOf(HasSubstr("version 3"), HasSubstr("reads versions 1 and 2")));
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":2,"step":1,"files":[]})"),
              HasSubstr("no xxh3_128"));
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":1,"step":"1","files":[]})"),
              HasSubstr("manifest.json"));
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":1,"step":1,"files":[{"name":"x"}]})"),
              HasSubstr("bytes"));
  EXPECT_THAT(error_with(std::string(58'000, '[')), HasSubstr("manifest.json': nested more than 128 deep"));
  EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":1,"step":1,"files":[{"name":"../x","bytes":1,)"
                         R"("xxh3_128":"","tensors":[]}]})"),
              HasSubstr("\"../x\" is not the name of a file in this folder"));
}

// 12.9 was taken for 12, and what 1e300 is as an integer is undefined.
TEST(Manifest, RefusesNumbersThatAreNotWhole) {
  for (const char* number : {"12.9", "1e300", "-1", "9223372036854775808", "true", "\"1\""}) {
    const auto error_with = [&](std::string text) {
      text.replace(text.find('@'), 1, number);
      return message_of<DamagedFile>([&] { parse_manifest(text, "f"); });
    };
    EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":1,"step":@,"files":[]})"),
                AllOf(HasSubstr("f: step "), HasSubstr("is not an integer")));
    EXPECT_THAT(error_with(R"({"format":"lighthouse-checkpoint","version":1,"step":1,"files":[{"name":"x",)"
                           R"("xxh3_128":"","bytes":@,"tensors":[]}]})"),
                AllOf(HasSubstr("f: bytes "), HasSubstr("is not an integer")));
  }
}

TEST(Manifest, RefusesShapesThatOverflow) {
  Manifest manifest = example();
  manifest.files[0].tensors[0].shape = {int64_t{1} << 62, 4};
  EXPECT_THAT(message_of<DamagedFile>([&] { parse_manifest(manifest_text(manifest), "f"); }),
              HasSubstr("f: shape [4611686018427387904,4] has more than"));
}

TEST(Manifest, KnowsItsOwnChecksum) {
  const std::string good = manifest_text(example());
  EXPECT_EQ(parse_manifest(good, "f").step, 7);
  for (size_t byte = 0; byte < good.size(); ++byte) {
    std::string bad = good;
    bad[byte] = static_cast<char>(bad[byte] ^ (1 << byte % 7));
    EXPECT_THROW(parse_manifest(bad, "f"), DamagedFile) << byte << ": " << good.substr(byte, 20);
  }
  // As written by versions without one.
  std::string old = good;
  old.erase(old.rfind(",\n \"xxh3_128\""), std::string(",\n \"xxh3_128\": \"\"").size() + 32);
  EXPECT_EQ(parse_manifest(old, "f").step, 7);
}

/// Of "w" of ten elements, of which a file has the elements from `begin` on for each pair.
Manifest with_ranges(const std::vector<std::pair<int64_t, int64_t>>& ranges) {
  Manifest manifest{7, {}};
  for (const auto& [begin, elements] : ranges) {
    const std::string number = std::to_string(manifest.files.size());
    FileEntry file{"file" + number, {}, {}};
    file.tensors.push_back({"w[" + number + "]", "F32", {elements}, 0, "", RangeEntry{"w", {2, 5}, begin}});
    manifest.files.push_back(file);
  }
  return manifest;
}

TEST(ManifestRanges, RoundTrip) {
  const Manifest found = parse_manifest(manifest_text(with_ranges({{0, 4}, {4, 6}})), "f");
  const auto& range = found.files.at(1).tensors.at(0).range;
  ASSERT_TRUE(range);
  EXPECT_EQ(range->name, "w");
  EXPECT_EQ(range->shape, (std::vector<int64_t>{2, 5}));
  EXPECT_EQ(range->begin, 4);
}

TEST(ManifestRanges, AreAllElementsOnce) {
  for (const auto& good : {with_ranges({{0, 10}}), with_ranges({{4, 6}, {0, 4}}), with_ranges({{0, 4}, {4, 0}, {4, 6}}),
                           with_ranges({{0, 4}, {0, 0}, {4, 6}, {10, 0}})}) {
    EXPECT_NO_THROW(check_ranges(good));
  }
  const auto error_of = [](const Manifest& manifest) {
    return message_of<DamagedFile>([&] { check_ranges(manifest); });
  };
  EXPECT_EQ(error_of(with_ranges({{0, 4}, {6, 4}})), "tensor \"w\": elements 4 to 5 of 10 are missing");
  EXPECT_EQ(error_of(with_ranges({{2, 8}})), "tensor \"w\": elements 0 to 1 of 10 are missing");
  EXPECT_EQ(error_of(with_ranges({{0, 4}, {4, 5}})), "tensor \"w\": elements 9 to 9 of 10 are missing");
  EXPECT_EQ(error_of(with_ranges({{0, 6}, {4, 6}})), "tensor \"w\": elements 4 to 5 are in \"file0\" and in \"file1\"");
  EXPECT_EQ(error_of(with_ranges({{0, 10}, {0, 10}})),
            "tensor \"w\": elements 0 to 9 are in \"file0\" and in \"file1\"");
  EXPECT_THAT(error_of(with_ranges({{0, 4}, {4, 7}})), HasSubstr("ends after its 10 elements"));
  EXPECT_THAT(error_of(with_ranges({{0, 4}, {int64_t{1} << 62, int64_t{1} << 62}})), HasSubstr("ends after"));
  Manifest other = with_ranges({{0, 4}, {4, 6}});
  other.files[1].tensors[0].range->shape = {5, 2};
  EXPECT_THAT(error_of(other), HasSubstr("several dtypes or shapes"));
  other.files[0].tensors[0].range->shape =
      other.files[1].tensors[0].range->shape = {int64_t{1} << 40, int64_t{1} << 40};
  EXPECT_THAT(error_of(other), HasSubstr("overflows"));
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

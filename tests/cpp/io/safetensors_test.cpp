#include "io/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <bit>
#include <chrono>
#include <cstring>
#include <numeric>

#include "cpp/io/memory_taken.h"
#include "cpp/io/temporary_folder.h"
#include "io/errors.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

/// Tensors of every dtype and odd shapes over bytes that count up.
struct Example {
  std::vector<std::byte> bytes;
  std::vector<RawTensor> tensors;

  Example() : bytes(4096) {
    for (size_t place = 0; place < bytes.size(); ++place) bytes[place] = static_cast<std::byte>(place * 7 % 251);
    const std::vector<std::vector<int64_t>> shapes = {{3}, {}, {2, 0, 5}, {1, 2, 3}};
    size_t begin = 0;
    for (const char* dtype : {"U8", "F64", "BOOL", "F32", "F16", "BF16", "I64", "I32", "I16", "I8"}) {
      for (const auto& shape : shapes) {
        const int64_t count = std::accumulate(shape.begin(), shape.end(), int64_t{1}, std::multiplies<>());
        const size_t size = stored_dtype(dtype).bytes * static_cast<size_t>(count);
        tensors.push_back({std::string(dtype) + "." + std::to_string(tensors.size()), dtype, shape,
                           std::span(bytes).subspan(begin, size)});
        begin += size;
      }
    }
  }
};

std::vector<std::byte> data_of(const SafetensorsFile& file, const StoredTensor& tensor) {
  std::vector<std::byte> data(static_cast<size_t>(tensor.bytes));
  file.read(tensor, data);
  return data;
}

TEST(Safetensors, RoundTrip) {
  const TemporaryFolder folder;
  const Example example;
  const FileSummary summary =
      write_safetensors(folder / "all", example.tensors, {{"format", "pt"}, {"quote", "\"ü\n"}});
  const SafetensorsFile file(folder / "all");
  EXPECT_EQ(file.metadata(), (std::map<std::string, std::string>{{"format", "pt"}, {"quote", "\"ü\n"}}));
  ASSERT_EQ(file.tensors().size(), example.tensors.size());
  for (const RawTensor& expected : example.tensors) {
    const StoredTensor& found = file.tensor(expected.name);
    EXPECT_EQ(found.dtype, expected.dtype);
    EXPECT_EQ(found.shape, expected.shape);
    EXPECT_TRUE(std::ranges::equal(data_of(file, found), expected.data)) << expected.name;
    EXPECT_EQ(static_cast<size_t>(found.begin) % stored_dtype(found.dtype).bytes, 0U) << "aligned";
  }
  const FileSummary found = summarize(file.file());
  EXPECT_EQ(found.bytes, summary.bytes);
  EXPECT_EQ(found.checksum, summary.checksum);
  EXPECT_EQ(found.checksum, checksum(read_file(folder / "all")));
  EXPECT_THAT(message_of<DamagedFile>([&] { file.tensor("absent"); }), AllOf(HasSubstr("all"), HasSubstr("absent")));
}

TEST(Safetensors, NoTensorsAtAll) {
  const TemporaryFolder folder;
  write_safetensors(folder / "none", {});
  EXPECT_TRUE(SafetensorsFile(folder / "none").tensors().empty());
}

TEST(Safetensors, ReadsFilesOfOtherWriters) {
  const SafetensorsFile file(LIGHTHOUSE_GOLDEN_DIR "/a.safetensors");
  EXPECT_EQ(file.metadata().at("N"), "4096");
  const StoredTensor& q = file.tensor("q");
  EXPECT_EQ(q.dtype, "F32");
  EXPECT_EQ(q.shape, (std::vector<int64_t>{1, 4096, 2, 16}));
  float first[4];
  std::memcpy(first, data_of(file, q).data(), sizeof first);
  EXPECT_THAT(first, ::testing::ElementsAre(1.4515961F, 0.45905745F, 0.28040642F, 0.9982885F));
  EXPECT_EQ(file.tensor("norm.idx").dtype, "I32");
}

TEST(Safetensors, RefusesToWriteWhatTheFormatCannotHold) {
  const TemporaryFolder folder;
  const std::vector<std::byte> bytes(8);
  const RawTensor good{"w", "F32", {2}, bytes};
  const auto error_of = [&](const std::vector<RawTensor>& tensors) {
    return message_of<InvalidArgument>([&] { write_safetensors(folder / "file", tensors); });
  };
  EXPECT_THAT(error_of({good, good}), HasSubstr("\"w\""));
  EXPECT_THAT(error_of({{"__metadata__", "F32", {2}, bytes}}), HasSubstr("reserved"));
  EXPECT_THAT(error_of({{"w", "F32", {3}, bytes}}), HasSubstr("12"));
  EXPECT_THAT(error_of({{"w", "F32", {-2}, bytes}}), HasSubstr("-2"));
  EXPECT_THAT(error_of({{"w", "F32", {int64_t{1} << 62, 2}, bytes}}), HasSubstr("too large"));
  EXPECT_THAT(error_of({{"w", "C64", {1}, bytes}}), HasSubstr("C64"));
  EXPECT_THAT(error_of({{"\xff", "F32", {2}, bytes}}), HasSubstr("UTF-8"));
  EXPECT_EQ(count_entries(folder.path()), 0U);
}

/// A file of so many small tensors; the bytes of its header.
size_t write_many(const std::filesystem::path& path, size_t count) {
  std::string header = "{";
  for (size_t i = 0; i < count; ++i) {
    const std::string name = "layers." + std::to_string(i * 7919 % count);
    header += (i == 0 ? "\"" : ",\"") + name + R"(":{"dtype":"U8","shape":[1],"data_offsets":[)" + std::to_string(i) +
              "," + std::to_string(i + 1) + "]}";
  }
  const uint64_t length = header.size() + 1;
  write_bytes(path, std::string(reinterpret_cast<const char*>(&length), sizeof length) + header + "}" +
                        std::string(count, 'x'));
  return header.size();
}

// Both took a time that grew with the square of their number: 79 s for the header alone.
TEST(Safetensors, ManyTensorsAreReadInLinearTime) {
  const TemporaryFolder folder;
  constexpr size_t kTensors = 40'000;
  write_many(folder / "many", kTensors);
  const auto begin = std::chrono::steady_clock::now();
  const SafetensorsFile file(folder / "many");
  for (size_t i = 0; i < kTensors; ++i) EXPECT_EQ(file.tensor("layers." + std::to_string(i)).bytes, 1);
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(elapsed.count(), 3) << "0.06 s on an idle machine, without sanitizers";
  EXPECT_EQ(file.tensors().size(), kTensors);
}

TEST(Safetensors, HeadersTakeLittleMemory) {
  const TemporaryFolder folder;
  const size_t bytes = write_many(folder / "many", 300'000);
  ASSERT_GT(bytes, 19'000'000U);
  EXPECT_LE(memory_taken_by([&] { const SafetensorsFile file(folder / "many"); }),
            static_cast<int64_t>(bytes) + kJsonMemory)
      << "it took 417 MiB with the header as one value";
}

TEST(Safetensors, RefusesTensorsForWhichMemoryIsNotEnough) {
  const TemporaryFolder folder;
  const auto bytes = static_cast<int64_t>(write_many(folder / "many", 450'000));
  const auto read = [&] { return message_of<DamagedFile>([&] { const SafetensorsFile file(folder / "many"); }); };
  EXPECT_THAT(read(), AllOf(HasSubstr("many'"), HasSubstr("tensors and more take over 54525952 bytes of memory")));
  EXPECT_LE(memory_taken_by(read), bytes + kJsonMemory);
}

}  // namespace
}  // namespace lighthouse

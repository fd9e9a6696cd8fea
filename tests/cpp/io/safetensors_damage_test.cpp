// Files that claim what is not so: each must be refused with words, none may crash the reader.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include "cpp/io/temporary_folder.h"
#include "io/errors.h"
#include "io/safetensors.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string length_field(uint64_t length) { return {reinterpret_cast<const char*>(&length), sizeof length}; }

std::string file_of(const std::string& header, size_t data_bytes) {
  return length_field(header.size()) + header + std::string(data_bytes, '\x01');
}

/// A file of one tensor "w" with 8 bytes of data, of which one part is given.
std::string with_entry(const std::string& dtype, const std::string& shape, const std::string& offsets) {
  return file_of(R"({"w":{"dtype":)" + dtype + R"(,"shape":)" + shape + R"(,"data_offsets":)" + offsets + "}}", 8);
}

std::string two_tensors(const std::string& first, const std::string& second, size_t data_bytes) {
  return file_of(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + first +
                     R"(},"w":{"dtype":"U8","shape":[4],"data_offsets":)" + second + "}}",
                 data_bytes);
}

std::string repeated(const std::string& part, size_t count) {
  std::string text;
  for (size_t i = 0; i < count; ++i) text += part;
  return text;
}

std::string many_members(size_t count) {
  std::string text = "\"k\":\"\"";
  for (size_t i = 0; i < count; ++i) text += ",\"" + std::to_string(i) + "\":\"\"";
  return text;
}

struct Damage {
  const char* name;
  std::string bytes;
  const char* says;  ///< part of the message
};

std::vector<Damage> damages() {
  const std::string entry = R"("w":{"dtype":"U8","shape":[4],"data_offsets":[0,4]})";
  return {
      {"EmptyFile", "", "empty"},
      {"ShorterThanLength", "1234567", "truncated"},
      {"LengthZero", length_field(0), "header length is 0"},
      {"LengthZeroWithData", length_field(0) + "{}", "header length is 0"},
      {"LengthOnePastFile", length_field(3) + "{}", "header length 3"},
      {"Length2To60", length_field(uint64_t{1} << 60) + "{}", "header length 1152921504606846976"},
      {"LengthAllOnes", length_field(~uint64_t{0}) + "{}", "header length 18446744073709551615"},
      {"LengthWrapsAround", length_field(~uint64_t{0} - 7) + "{}", "header length 18446744073709551608"},
      {"HeaderTruncated", length_field(2) + "{", "header length 2"},
      {"NotJson", file_of("this is not JSON", 0), "not JSON"},
      {"Unclosed", file_of("{" + entry, 4), "not JSON"},
      {"Trailing", file_of("{" + entry + "}}", 4), "not JSON"},
      {"NotUtf8", file_of("{\"\xff\":1}", 0), "not JSON"},
      {"DeeplyNested", file_of("{\"w\":" + std::string(1'000'000, '['), 0), "nested more than 128 deep"},
      {"ManyDimensions", with_entry("\"U8\"", "[8" + repeated(",1", 64) + "]", "[0,8]"), "65 dimensions"},
      {"MillionsOfDimensions", with_entry("\"U8\"", "[8" + repeated(",1", 4'000'000) + "]", "[0,8]"),
       "\"w\" takes more than 4194304 bytes"},
      {"LargeMetadata", file_of(R"({"__metadata__":{"a":")" + std::string(5'000'000, 'x') + "\"}," + entry + "}", 4),
       "\"__metadata__\" takes more than 4194304 bytes"},
      {"MuchMetadata", file_of(R"({"__metadata__":{)" + many_members(100'000) + "}," + entry + "}", 4),
       "\"__metadata__\" takes more than 4194304 bytes"},
      {"LongName", file_of("{\"" + std::string(2'000'000, 'n') + "\":1}", 0), "nnn... (2000000 bytes)\": its header"},
      {"LongDtype", with_entry('"' + std::string(2'000'000, 'd') + '"', "[8]", "[0,8]"), "ddd... (2000000 bytes)\""},
      {"ByteOrderMark", file_of("\xef\xbb\xbf{}", 0), "byte order mark"},
      {"HeaderIsArray", file_of("[]", 0), "not a JSON object"},
      {"HeaderIsNumber", file_of("12", 0), "not a JSON object"},
      {"NameTwice", file_of("{" + entry + "," + entry + "}", 4), "\"w\" stands twice"},
      {"MemberTwice", file_of(R"({"w":{"dtype":"U8","dtype":"U8","shape":[4],"data_offsets":[0,4]}})", 4),
       "\"dtype\" stands twice"},
      {"EntryIsNumber", file_of(R"({"w":7})", 0), "tensor \"w\""},
      {"NoDtype", file_of(R"({"w":{"shape":[4],"data_offsets":[0,4]}})", 4), "no dtype"},
      {"NoShape", file_of(R"({"w":{"dtype":"U8","data_offsets":[0,4]}})", 4), "no shape"},
      {"NoOffsets", file_of(R"({"w":{"dtype":"U8","shape":[4]}})", 4), "no data_offsets"},
      {"UnknownDtype", with_entry(R"("F31")", "[2]", "[0,8]"), "F31"},
      {"DtypeIsNumber", with_entry("32", "[2]", "[0,8]"), "dtype is of type number"},
      {"NegativeSize", with_entry(R"("F32")", "[-2]", "[0,8]"), "-2"},
      {"NegativeSizes", with_entry(R"("F32")", "[-2,-1]", "[0,8]"), "-2"},
      {"FractionalSize", with_entry(R"("F32")", "[2.0]", "[0,8]"), "2.0"},
      {"SizeIsString", with_entry(R"("F32")", R"(["2"])", "[0,8]"), "\"2\""},
      {"ShapeIsNumber", with_entry(R"("F32")", "2", "[0,8]"), "shape is of type number"},
      {"ShapeOverflows", with_entry(R"("F32")", "[4294967296,4294967296,2]", "[0,8]"), "overflows"},
      {"ShapeWrapsToSize", with_entry(R"("F32")", "[4611686018427387905,2]", "[0,8]"), "overflows"},
      {"EmptyWithStridesThatOverflow", with_entry(R"("F32")", "[0,4611686018427387904,2]", "[0,0]"), "overflows"},
      {"SizePast63Bits", with_entry(R"("U8")", "[9223372036854775808]", "[0,8]"), "9223372036854775808"},
      {"SizePast64Bits", with_entry(R"("U8")", "[99999999999999999999]", "[0,8]"), "is not an integer"},
      {"OneOffset", with_entry(R"("F32")", "[2]", "[8]"), "has 1 numbers"},
      {"ThreeOffsets", with_entry(R"("F32")", "[2]", "[0,8,8]"), "has 3 numbers"},
      {"NegativeOffset", with_entry(R"("F32")", "[2]", "[-8,0]"), "-8"},
      {"OffsetsReversed", with_entry(R"("F32")", "[2]", "[8,0]"), "do not lie in"},
      {"OffsetPastFile", with_entry(R"("F32")", "[3]", "[0,12]"), "do not lie in"},
      {"OffsetsFarPastFile", with_entry(R"("F32")", "[2]", "[9223372036854775799,9223372036854775807]"),
       "do not lie in"},
      {"SpanTooSmall", with_entry(R"("F32")", "[2]", "[0,4]"), "span 4 bytes"},
      {"SpanTooLarge", with_entry(R"("F32")", "[1]", "[0,8]"), "span 8 bytes"},
      {"Overlap", two_tensors("[0,4]", "[2,6]", 6), "tensor \"w\": overlaps"},
      {"SamePlace", two_tensors("[0,4]", "[0,4]", 4), "overlaps"},
      {"HoleBefore", with_entry(R"("F32")", "[1]", "[4,8]"), "bytes before it"},
      {"HoleBetween", two_tensors("[0,4]", "[5,9]", 9), "tensor \"w\": bytes before it"},
      {"HoleAtEnd", two_tensors("[0,4]", "[4,8]", 9), "1 bytes at its end"},
      {"DataWithoutTensors", file_of("{}", 1), "1 bytes at its end"},
      {"DataTruncated", two_tensors("[0,4]", "[4,8]", 7), "do not lie in the 7 data bytes"},
      {"DataMissing", two_tensors("[0,4]", "[4,8]", 0), "truncated or damaged"},
      {"MetadataIsList", file_of(R"({"__metadata__":[]})", 0), "__metadata__ is not an object"},
      {"MetadataIsNumber", file_of(R"({"__metadata__":{"N":4096}})", 0), "\"N\" is not a string"},
      {"MetadataTwice", file_of(R"({"__metadata__":{},"__metadata__":{}})", 0), "stands twice"},
  };
}

class SafetensorsDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(SafetensorsDamage, IsNamed) {
  const TemporaryFolder folder;
  write_bytes(folder / "weights.safetensors", GetParam().bytes);
  const std::string message = message_of<DamagedFile>([&] { SafetensorsFile(folder / "weights.safetensors"); });
  EXPECT_THAT(message, AllOf(HasSubstr("weights.safetensors'"), HasSubstr(GetParam().says)));
  EXPECT_LT(message.size(), 1000U);
}
INSTANTIATE_TEST_SUITE_P(Files, SafetensorsDamage, ::testing::ValuesIn(damages()),
                         [](const auto& instance) { return instance.param.name; });

TEST(SafetensorsDamageOf, WhatIsNoFile) {
  const TemporaryFolder folder;
  EXPECT_THAT(message_of<DamagedFile>([&] { SafetensorsFile{folder.path()}; }), HasSubstr("not a regular file"));
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_THAT(message_of<DamagedFile>([&] { SafetensorsFile(folder / "pipe"); }), HasSubstr("not a regular file"));
  EXPECT_THAT(message_of<std::system_error>([&] { SafetensorsFile(folder / "absent"); }),
              AllOf(HasSubstr("absent"), HasSubstr("No such file")));
}

// Whatever byte of a small file is cut off or changed, the reader ends with a result or a worded error.
TEST(SafetensorsDamageOf, AnyByte) {
  const TemporaryFolder folder;
  const std::string good = two_tensors("[0,4]", "[4,8]", 8);
  const auto outcome = [&](const std::string& bytes) {
    write_bytes(folder / "file", bytes);
    try {
      const SafetensorsFile file(folder / "file");
      size_t sum = 0;
      for (const StoredTensor& tensor : file.tensors()) {
        std::vector<std::byte> data(static_cast<size_t>(tensor.bytes));
        file.read(tensor, data);
        for (const std::byte byte : data) sum += std::to_integer<size_t>(byte);  // all of it can be read
      }
      return sum > 0;
    } catch (const DamagedFile&) {
      return false;
    }
  };
  EXPECT_TRUE(outcome(good));
  for (size_t length = 0; length < good.size(); ++length) EXPECT_FALSE(outcome(good.substr(0, length))) << length;
  int refused = 0;
  for (size_t place = 0; place < good.size(); ++place) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string bytes = good;
      bytes[place] = static_cast<char>(bytes[place] ^ (1 << bit));
      refused += outcome(bytes) ? 0 : 1;
    }
  }
  EXPECT_GT(refused, 8 * 8);  // every bit of the length field at least
}

}  // namespace
}  // namespace lighthouse

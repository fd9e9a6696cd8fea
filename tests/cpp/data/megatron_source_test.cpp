#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>

#include "cpp/data/corpus.h"
#include "data/sequence_loader.h"
#include "data/token_source.h"
#include "io/errors.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
using ::testing::AllOf;
using ::testing::HasSubstr;

template <typename T>
std::vector<int64_t> read_as(uint8_t code, const std::vector<T>& values) {
  const TemporaryFolder folder;
  const auto half = static_cast<int32_t>(values.size() / 2);
  const MegatronIndex index({half, static_cast<int32_t>(values.size()) - half}, code, sizeof(T));
  write_bytes(folder / "set.idx", index.bytes());
  write_bytes(folder / "set.bin", packed(values));
  const auto source = open_source(folder / "set", CorpusFormat::kAuto, {});
  EXPECT_EQ(source->document_offsets(), (std::vector<int64_t>{0, half, static_cast<int64_t>(values.size())}));
  std::vector<int64_t> tokens(values.size());
  source->read(0, tokens);
  std::vector<int64_t> tail(2);
  source->read(static_cast<int64_t>(values.size()) - 2, tail);
  EXPECT_TRUE(std::equal(tail.begin(), tail.end(), tokens.end() - 2));
  return tokens;
}

TEST(Megatron, EveryDtype) {
  using List = std::vector<int64_t>;
  EXPECT_EQ(read_as<uint8_t>(1, {0, 1, 254, 255}), (List{0, 1, 254, 255}));
  EXPECT_EQ(read_as<int8_t>(2, {0, 1, 127, -1}), (List{0, 1, 127, -1}));
  EXPECT_EQ(read_as<int16_t>(3, {0, 300, 32767, -2}), (List{0, 300, 32767, -2}));
  EXPECT_EQ(read_as<int32_t>(4, {0, 70'000, INT32_MAX, -3}), (List{0, 70'000, INT32_MAX, -3}));
  EXPECT_EQ(read_as<int64_t>(5, {0, 70'000, INT64_MAX, -4}), (List{0, 70'000, INT64_MAX, -4}));
  EXPECT_EQ(read_as<double>(6, {0, 70'000, 4294967296.0, 1.5}), (List{0, 70'000, 4294967296, -1}));
  EXPECT_EQ(read_as<float>(7, {0, 70'000, 1e30F, NAN}), (List{0, 70'000, -1, -1}));
  EXPECT_EQ(read_as<uint16_t>(8, {0, 50'256, 65'535, 7}), (List{0, 50'256, 65'535, 7}));
}

TEST(Megatron, DocumentsOfSeveralSequencesAndEmptyOnes) {
  const TemporaryFolder folder;
  MegatronIndex index({3, 0, 2, 4, 1}, 1, 1);
  index.documents = {0, 0, 2, 3, 3, 5, 5};
  write_bytes(folder / "set.idx", index.bytes());
  write_bytes(folder / "set.bin", "0123456789");
  for (const char* path : {"set", "set.bin", "set.idx"}) {
    EXPECT_EQ(open_source(folder / path, CorpusFormat::kAuto, {})->document_offsets(),
              (std::vector<int64_t>{0, 3, 5, 10}));
    EXPECT_EQ(open_source(folder / path, CorpusFormat::kMegatron, {})->num_tokens(), 10);
  }
  EXPECT_EQ(open_source(folder / "set.idx", CorpusFormat::kText, {})->num_tokens(),
            static_cast<int64_t>(index.bytes().size()));
}

TEST(Megatron, FileThatIsCutShortIsAnError) {
  const TemporaryFolder folder;
  write_bytes(folder / "set.idx", MegatronIndex({50'000, 50'000}, 8, 2).bytes());
  write_bytes(folder / "set.bin", std::string(200'000, '\1'));
  const auto source = open_source(folder / "set", CorpusFormat::kAuto, {});
  std::vector<int64_t> tokens(1000);
  source->read(0, tokens);
  EXPECT_EQ(tokens.front(), 257);
  std::filesystem::resize_file(folder / "set.bin", 4000);
  EXPECT_NO_THROW(source->read(0, tokens));
  EXPECT_THAT(message_of<DamagedFile>([&] { source->read(99'000, tokens); }),
              AllOf(HasSubstr("set.bin'"), HasSubstr("4000 now")));
}

TEST(Megatron, FeedsTheLoader) {
  const TemporaryFolder folder;
  std::vector<uint16_t> tokens(1001);
  for (size_t place = 0; place < tokens.size(); ++place) tokens[place] = static_cast<uint16_t>(place);
  write_bytes(folder / "set.idx", MegatronIndex({500, 501}, 8, 2).bytes());
  write_bytes(folder / "set.bin", packed(tokens));
  const SequenceLoader loader(data_config(folder / "set"), 100, 1001);
  EXPECT_EQ(loader.sequences_per_epoch(), 10);
  int64_t sum = 0;
  for (int64_t index = 0; index < 10; ++index) {
    const Sequence sequence = loader.training_sequence(index);
    for (size_t place = 0; place < 100; ++place) EXPECT_EQ(sequence.targets[place], sequence.inputs[place] + 1);
    sum += sequence.inputs[0];
  }
  EXPECT_EQ(sum, 4500);
  const SequenceLoader small(data_config(folder / "set"), 1000, 1000);
  EXPECT_THAT(message_of<InvalidArgument>([&] { small.training_sequence(0); }),
              AllOf(HasSubstr("token 1000 at token 1000 of"), HasSubstr("set.bin"), HasSubstr("vocab")));
}

struct Damage {
  const char* name;
  std::function<void(MegatronIndex&, std::string& bin)> spoil;
  const char* says;
};

class MegatronDamage : public ::testing::TestWithParam<Damage> {};

TEST_P(MegatronDamage, IsNamed) {
  const TemporaryFolder folder;
  MegatronIndex index({3, 2, 5}, 4, 4);
  std::string bin(40, '\0');
  GetParam().spoil(index, bin);
  write_bytes(folder / "set.idx", index.bytes());
  write_bytes(folder / "set.bin", bin);
  EXPECT_THAT(message_of<InvalidArgument>([&] { open_source(folder / "set", CorpusFormat::kAuto, {}); }),
              AllOf(HasSubstr("set."), HasSubstr(GetParam().says)));
}
using Index = MegatronIndex;
using Bin = std::string;
INSTANTIATE_TEST_SUITE_P(
    Indices, MegatronDamage,
    ::testing::Values(
        Damage{"BadMagic", [](Index& index, Bin&) { index.magic[0] = 'N'; }, "does not begin with MMIDIDX"},
        Damage{"OldMagic", [](Index& index, Bin&) { index.magic = std::string("TNTIDX\0\0", 8); },
               "does not begin with MMIDIDX"},
        Damage{"Version", [](Index& index, Bin&) { index.version = 2; }, "version 2"},
        Damage{"DtypeZero", [](Index& index, Bin&) { index.dtype = 0; }, "dtype code 0"},
        Damage{"DtypeNine", [](Index& index, Bin&) { index.dtype = 9; }, "dtype code 9"},
        Damage{"DtypeOfOtherWidth", [](Index& index, Bin&) { index.dtype = 8; }, "sequence 1 points to byte 12"},
        Damage{"NegativeSize", [](Index& index, Bin&) { index.sizes[1] = -2; }, "size -2"},
        Damage{"SizeTooLarge", [](Index& index, Bin&) { index.sizes[2] = INT32_MAX; }, "truncated"},
        Damage{"DecreasingPointer", [](Index& index, Bin&) { index.pointers[2] = 4; }, "sequence 2 points to byte 4"},
        Damage{"NegativePointer", [](Index& index, Bin&) { index.pointers[0] = -4; }, "points to byte -4"},
        Damage{"PointerGap", [](Index& index, Bin&) { index.pointers[1] = 16; }, "points to byte 16"},
        Damage{"UnalignedPointer", [](Index& index, Bin&) { index.pointers[1] = 13; }, "points to byte 13"},
        Damage{"BinTruncated", [](Index&, Bin& bin) { bin.resize(39); }, "ends before sequence 2"},
        Damage{"BinEmpty", [](Index&, Bin& bin) { bin.clear(); }, "ends before sequence 0"},
        Damage{"BinTooLong", [](Index&, Bin& bin) { bin.resize(44); }, "not of one data set"},
        Damage{"DocumentsDecrease",
               [](Index& index, Bin&) {
                 index.documents = {0, 2, 1, 3};
               },
               "must not decrease"},
        Damage{"DocumentPastEnd",
               [](Index& index, Bin&) {
                 index.documents = {0, 4, 3};
               },
               "must not decrease"},
        Damage{"DocumentsEndEarly",
               [](Index& index, Bin&) {
                 index.documents = {0, 1, 2};
               },
               "number of sequences, 3"},
        Damage{"DocumentsBeginLate",
               [](Index& index, Bin&) {
                 index.documents = {1, 2, 3};
               },
               "from 0"},
        Damage{"NoDocuments", [](Index& index, Bin&) { index.documents = {}; }, "from 0"},
        Damage{"NoTokens",
               [](Index& index, Bin& bin) {
                 index = Index({0, 0}, 4, 4);
                 bin.clear();
               },
               "lists no token"}),
    [](const auto& instance) { return instance.param.name; });

TEST(MegatronDamageOf, AnyTruncationOfTheIndex) {
  const TemporaryFolder folder;
  const std::string whole = MegatronIndex({3, 2, 5}, 1, 1).bytes();
  write_bytes(folder / "set.bin", "0123456789");
  for (size_t length = 0; length < whole.size(); ++length) {
    write_bytes(folder / "set.idx", whole.substr(0, length));
    EXPECT_THAT(message_of<InvalidArgument>([&] { open_source(folder / "set", CorpusFormat::kAuto, {}); }),
                AllOf(HasSubstr("set.idx'"), HasSubstr("truncated")))
        << length;
  }
  write_bytes(folder / "set.idx", whole + "x");
  EXPECT_THAT(message_of<InvalidArgument>([&] { open_source(folder / "set", CorpusFormat::kAuto, {}); }),
              HasSubstr("1 bytes after"));
}

TEST(MegatronDamageOf, CountsThatOverflow) {
  const TemporaryFolder folder;
  write_bytes(folder / "set.bin", "0123456789");
  for (const uint64_t count : {uint64_t{1} << 60, uint64_t{1} << 62, ~uint64_t{0}, ~uint64_t{0} / 4 + 1}) {
    std::string bytes = MegatronIndex({3, 2, 5}, 1, 1).bytes();
    bytes.replace(18, 8, packed<uint64_t>({count}));
    write_bytes(folder / "set.idx", bytes);
    EXPECT_THAT(message_of<InvalidArgument>([&] { open_source(folder / "set", CorpusFormat::kAuto, {}); }),
                HasSubstr("truncated"));
  }
}

TEST(MegatronDamageOf, AnyBit) {
  const TemporaryFolder folder;
  const std::string whole = MegatronIndex({3, 2, 5}, 1, 1).bytes();
  write_bytes(folder / "set.bin", "0123456789");
  for (size_t bit = 0; bit < whole.size() * 8; ++bit) {
    std::string bytes = whole;
    bytes[bit / 8] = static_cast<char>(bytes[bit / 8] ^ (1 << bit % 8));
    write_bytes(folder / "set.idx", bytes);
    try {
      const auto source = open_source(folder / "set", CorpusFormat::kAuto, {});
      EXPECT_EQ(source->num_tokens(), 10) << bit;  // another dtype of one byte, another division into documents
    } catch (const InvalidArgument&) {
      continue;
    }
  }
}

}  // namespace
}  // namespace lighthouse

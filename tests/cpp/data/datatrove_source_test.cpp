// tests/python/test_other_tools.py reads what datatrove itself writes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/data/corpus.h"
#include "data/token_source.h"
#include "io/errors.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

void write_set(const fs::path& file, const std::string& tokens, const std::vector<uint64_t>& ends) {
  write_bytes(file, tokens);
  write_bytes(file.string() + ".index", packed(ends));
}

/// Three files: of 2 bytes a token, without a token, and of 4.
class Datatrove : public ::testing::Test {
 protected:
  Datatrove() {
    write_set(set() / "0_shuffled.ds", packed<uint16_t>({1, 2, 65'535, 4, 5}), {2, 2, 5});
    write_set(set() / "1_shuffled.ds", "", {});
    write_set(set() / "2_shuffled.ds", packed<uint32_t>({6, 4'000'000'000, 8}), {1, 3});
    write_bytes(set() / "2_shuffled.ds.metadata", "tokenizer|4\n3\n3 T");
  }
  fs::path set() const { return folder_ / "set"; }
  std::string refusal(const std::string& name) const {
    return message_of<InvalidArgument>([&] { open_source(set() / name, CorpusFormat::kAuto, {}); });
  }

  TemporaryFolder folder_;
};

TEST_F(Datatrove, FilesLieOneAfterAnother) {
  for (const CorpusFormat format : {CorpusFormat::kAuto, CorpusFormat::kDatatrove}) {
    const auto source = open_source(set(), format, {});
    EXPECT_EQ(source->document_offsets(), (std::vector<int64_t>{0, 2, 5, 6, 8}));
    const std::vector<int64_t> all = {1, 2, 65'535, 4, 5, 6, 4'000'000'000, 8};
    for (size_t begin = 0; begin < all.size(); ++begin) {
      for (size_t end = begin + 1; end <= all.size(); ++end) {
        std::vector<int64_t> tokens(end - begin);
        source->read(static_cast<int64_t>(begin), tokens);
        EXPECT_TRUE(std::equal(tokens.begin(), tokens.end(), all.begin() + static_cast<int64_t>(begin)));
      }
    }
    EXPECT_THAT(source->describe(6), AllOf(HasSubstr("token 1 of"), HasSubstr("2_shuffled.ds'")));
    EXPECT_EQ(source->files().size(), 2U);
  }
  const auto single = open_source(set() / "2_shuffled.ds", CorpusFormat::kAuto, {});
  EXPECT_EQ(single->document_offsets(), (std::vector<int64_t>{0, 1, 3}));
  EXPECT_NE(single->fingerprint(), open_source(set(), CorpusFormat::kAuto, {})->fingerprint());
}

TEST_F(Datatrove, WhatIsWrongIsNamed) {
  write_set(set() / "ends.ds", packed<uint16_t>({1, 2}), {2, 1});
  EXPECT_THAT(refusal("ends.ds"), AllOf(HasSubstr("ends.ds.index'"), HasSubstr("must not decrease")));
  write_set(set() / "short.ds", packed<uint16_t>({1}), {2});
  EXPECT_THAT(refusal("short.ds"), AllOf(HasSubstr("short.ds' has 2 bytes"), HasSubstr("2 tokens")));
  write_set(set() / "long.ds", packed<uint64_t>({1, 2}), {2});
  EXPECT_THAT(refusal("long.ds"), HasSubstr("of 2 or 4 bytes each"));
  write_set(set() / "none.ds", packed<uint16_t>({1}), {});
  EXPECT_THAT(refusal("none.ds"), HasSubstr("lists 0 tokens"));
  EXPECT_THAT(refusal("1_shuffled.ds"), HasSubstr("holds no token"));
  write_bytes(set() / "1_shuffled.ds.index", "1234");
  EXPECT_THAT(refusal("1_shuffled.ds"), HasSubstr("not a multiple of 8"));
  write_bytes(set() / "1_shuffled.ds.index", packed<uint64_t>({uint64_t{1} << 63}));
  EXPECT_THAT(refusal("1_shuffled.ds"), HasSubstr("must not decrease"));
  fs::remove(set() / "1_shuffled.ds.index");
  EXPECT_THAT(refusal("1_shuffled.ds"), AllOf(HasSubstr("1_shuffled.ds.index"), HasSubstr("NAME.ds.index")));
  write_bytes(set() / "0_shuffled.ds.loss", "mask");
  EXPECT_THAT(refusal("0_shuffled.ds"), HasSubstr("mask of the loss"));
  EXPECT_THAT(refusal("absent.ds"), HasSubstr("absent.ds"));
}

TEST_F(Datatrove, FileThatIsCutShortIsAnError) {
  const auto source = open_source(set(), CorpusFormat::kAuto, {});
  fs::resize_file(set() / "2_shuffled.ds", 4);
  std::vector<int64_t> tokens(8);
  EXPECT_THAT(message_of<DamagedFile>([&] { source->read(0, tokens); }), HasSubstr("2_shuffled.ds"));
}

TEST_F(Datatrove, AmongOtherFilesIsNotGuessed) {
  write_bytes(set() / "README.md", "text");
  EXPECT_THAT(refusal(""), AllOf(HasSubstr(".ds' is a file of tokens"), HasSubstr("datatrove")));
  EXPECT_EQ(open_source(set(), CorpusFormat::kDatatrove, {})->num_tokens(), 8);
}

}  // namespace
}  // namespace lighthouse

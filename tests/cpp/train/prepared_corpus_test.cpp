// What lighthouse-prepare leaves beside a corpus. tests/python/test_prepare_to_model.py has it write one.
#include "train/prepared_corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "cpp/data/corpus.h"
#include "cpp/io/temporary_folder.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

constexpr const char* kManifest =
    R"({"format": "lighthouse-prepare 1", "vocab_size": 400, "data": {"train": {}, "validation": {}}})";

class PreparedCorpus : public ::testing::Test {
 protected:
  PreparedCorpus() {
    fs::create_directories(tokens() / "tokenizer");
    fs::create_directories(run());
    write_bytes(tokens() / "manifest.json", kManifest);
    write_bytes(tokens() / "tokenizer" / "tokenizer.json", "tokens");
    write_bytes(tokens() / "tokenizer" / "generation_config.json", "{}");
    write_bytes(tokens() / "tokenizer" / "notes.txt", "not a tokenizer's");
  }
  fs::path tokens() const { return folder_ / "tokens"; }
  fs::path run() const { return folder_ / "run"; }
  fs::path kept() const { return run() / "tokenizer"; }
  void keep(const fs::path& corpus) const { keep_tokenizer(run(), data_config(corpus)); }

  TemporaryFolder folder_;
};

TEST_F(PreparedCorpus, ItsTokenizerIsKept) {
  for (const char* name : {"train", "train.bin", "validation.idx"}) {
    fs::remove_all(kept());
    keep(tokens() / name);
    EXPECT_EQ(read_bytes(kept() / "tokenizer.json"), "tokens");
    EXPECT_EQ(read_bytes(kept() / "generation_config.json"), "{}");
    EXPECT_FALSE(fs::exists(kept() / "notes.txt"));
  }
}

TEST_F(PreparedCorpus, OfAnotherOriginLeavesNone) {
  const auto is_kept = [&](const fs::path& corpus) {
    write_bytes(kept() / "tokenizer.json", "of an earlier beginning");
    keep(corpus);
    return fs::exists(kept());
  };
  fs::create_directories(kept());
  EXPECT_TRUE(is_kept(tokens() / "train"));
  EXPECT_FALSE(is_kept(tokens() / "notes.txt"));
  for (const char* manifest : {"{", "[]", "{}", R"({"format": 1, "data": {"train": {}}})", R"({"format": "other"})"}) {
    fs::create_directories(kept());
    write_bytes(tokens() / "manifest.json", manifest);
    EXPECT_FALSE(is_kept(tokens() / "train")) << manifest;
    EXPECT_NO_THROW(check_vocabulary(data_config(tokens() / "train"), 1)) << manifest;
  }
}

TEST_F(PreparedCorpus, NeedsAsManyTokens) {
  EXPECT_NO_THROW(check_vocabulary(data_config(tokens() / "train"), 400));
  EXPECT_THAT(message_of<InvalidArgument>([&] { check_vocabulary(data_config(tokens() / "train"), 399); }),
              AllOf(HasSubstr("model.vocab_size = 399"), HasSubstr("tokens/train'"), HasSubstr("400 tokens")));
}

}  // namespace
}  // namespace lighthouse

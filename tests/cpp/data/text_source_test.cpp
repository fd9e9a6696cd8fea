#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <algorithm>

#include "cpp/data/corpus.h"
#include "data/sequence_loader.h"
#include "data/token_source.h"
#include "io/errors.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::AllOf;
using ::testing::HasSubstr;

std::string text_of(const TokenSource& source) {
  std::vector<int64_t> tokens(static_cast<size_t>(source.num_tokens()));
  source.read(0, tokens);
  return {tokens.begin(), tokens.end()};
}

TEST(TextSource, ReadsAFolderInSortedOrder) {
  const TemporaryFolder folder;
  write_bytes(folder / "b.h", "B");
  write_bytes(folder / "a/z.h", "Z");
  write_bytes(folder / "a/c.hpp", "C");
  write_bytes(folder / "a/d/e.cpp", "E");
  write_bytes(folder / "empty.h", "");
  EXPECT_EQ(text_of(*open_text_source(folder.path(), {})), "CEZB");
  EXPECT_EQ(text_of(*open_text_source(folder.path().string() + "/", {})), "CEZB");
  EXPECT_EQ(text_of(*open_text_source(folder.path(), {".h"})), "ZB");
  EXPECT_EQ(text_of(*open_text_source(folder.path(), {".cpp", ".hpp"})), "CE");
  EXPECT_EQ(open_text_source(folder.path(), {})->document_offsets(), (std::vector<int64_t>{0, 1, 2, 3, 4}));
  EXPECT_EQ(text_of(*open_text_source(folder / "b.h", {".cpp"})), "B");  // a file named is a file wanted
}

TEST(TextSource, FollowsLinksToFilesAndNoCircles) {
  const TemporaryFolder folder;
  const TemporaryFolder outside;
  write_bytes(outside / "far", "F");
  write_bytes(folder / "sub/near", "N");
  fs::create_symlink(outside / "far", folder / "link");
  fs::create_directory_symlink(folder.path(), folder / "sub/circle");
  fs::create_symlink("self", folder / "self");
  fs::create_symlink("absent", folder / "dangling");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  EXPECT_EQ(text_of(*open_text_source(folder.path(), {})), "FN");
}

TEST(TextSource, ReadsStretchesOverManyFiles) {
  const TemporaryFolder folder;
  const std::string text = numbered_text(5000);
  for (size_t begin = 0, number = 1000; begin < text.size(); begin += number % 90, ++number) {
    write_bytes(folder / std::to_string(number), text.substr(begin, number % 90));
  }
  const auto source = open_text_source(folder.path(), {});
  ASSERT_EQ(source->num_tokens(), 5000);
  EXPECT_EQ(text_of(*source), text);
  for (int64_t begin = 0; begin < 5000; begin += 97) {
    std::vector<int64_t> tokens(static_cast<size_t>(std::min<int64_t>(300, 5000 - begin)));
    source->read(begin, tokens);
    EXPECT_EQ(std::string(tokens.begin(), tokens.end()), text.substr(static_cast<size_t>(begin), 300));
  }
}

// More files than may be open or are kept mapped at once.
TEST(TextSource, ThousandsOfFiles) {
  const TemporaryFolder folder;
  for (int number = 10'000; number < 13'000; ++number)
    write_bytes(folder / std::to_string(number), std::to_string(number));
  const std::string result = run_in_child([&] {
    const rlimit few{32, 32};
    ::setrlimit(RLIMIT_NOFILE, &few);
    const auto source = open_text_source(folder.path(), {});
    const std::string text = text_of(*source);
    return text == text_of(*source) && text.size() == 15'000 && text.ends_with("1299812999") ? "whole" : "wrong";
  });
  EXPECT_EQ(result, "whole");
}

TEST(TextSource, TellsWhenAFileChanges) {
  const TemporaryFolder folder;
  write_bytes(folder / "a", "12345");
  write_bytes(folder / "b", "12345");
  const auto source = open_text_source(folder.path(), {});
  write_bytes(folder / "a", "123");
  EXPECT_THAT(message_of<DamagedFile>([&] { text_of(*source); }), AllOf(HasSubstr("/a'"), HasSubstr("had 5 bytes")));
  write_bytes(folder / "a", "12345");
  fs::remove(folder / "b");
  EXPECT_THAT(message_of<std::system_error>([&] { text_of(*source); }), HasSubstr("/b'"));
}

TEST(TextSource, TellsWhenAnOpenFileIsCutShort) {
  const TemporaryFolder folder;
  write_bytes(folder / "text", std::string(100'000, 'x'));
  const auto source = open_text_source(folder / "text", {});
  EXPECT_EQ(text_of(*source).size(), 100'000);
  fs::resize_file(folder / "text", 20'000);
  EXPECT_THAT(message_of<DamagedFile>([&] { text_of(*source); }),
              AllOf(HasSubstr("/text'"), HasSubstr("100000"), HasSubstr("20000 now")));
}

void write_run(const fs::path& folder) {
  write_bytes(folder / "config.toml", "[training]\nlighthouse_steps = 3\n");
  write_bytes(folder / "lock", "12345");
  write_bytes(folder / "metrics.jsonl", "{}");
  write_bytes(folder / "events.out.tfevents.1.host.2", "x");
  write_bytes(folder / "checkpoints/step-00000003/model.safetensors", "x");
}

TEST(TextSource, LeavesOutHiddenFilesRunsAndModels) {
  const TemporaryFolder folder;
  write_bytes(folder / "a.txt", "A");
  write_bytes(folder / "sub/b.txt", "B");
  const std::string fingerprint = open_text_source(folder.path(), {})->fingerprint();
  write_bytes(folder / ".DS_Store", "x");
  write_bytes(folder / "sub/.nfs0001", "x");
  write_bytes(folder / ".git/objects/ab", "x");
  write_run(folder / "runs/one");
  write_run(folder / "sub/deep/two");
  write_bytes(folder / "runs/begun/lock", "123");
  write_bytes(folder / "model/config.json", "{}");
  write_bytes(folder / "model/model.safetensors", "x");
  EXPECT_EQ(text_of(*open_text_source(folder.path(), {})), "AB");
  EXPECT_EQ(open_text_source(folder.path(), {})->fingerprint(), fingerprint);
  write_run(folder.path());  // logging.run_dir is the corpus itself
  EXPECT_EQ(text_of(*open_text_source(folder.path(), {})), "AB");
  write_bytes(folder / "other/config.toml", "C");  // of another program
  write_bytes(folder / "other/lock", "L");
  EXPECT_EQ(text_of(*open_text_source(folder.path(), {})), "ACLB");
  EXPECT_EQ(text_of(*open_text_source(folder / ".DS_Store", {})), "x");  // a file named is a file wanted
}

TEST(OpenSource, RefusesWhatIsNotTextByItsName) {
  const TemporaryFolder folder;
  for (const char* name : {"a.npy", "a.gz", "a.jsonl.gz", "a.zst", "a.parquet", "A.PARQUET", "a.tar.gz", "a.zip",
                           "a.arrow", "a.xz", "a.safetensors"}) {
    write_bytes(folder / name, "x");
    EXPECT_THAT(message_of<InvalidArgument>([&] { open_source(folder / name, CorpusFormat::kAuto, {}); }),
                AllOf(HasSubstr(name), HasSubstr("data.format = \"text\"")));
    EXPECT_EQ(open_source(folder / name, CorpusFormat::kText, {})->num_tokens(), 1);
  }
  write_bytes(folder / "of/texts/a.txt", "x");
  write_bytes(folder / "of/texts/b.bz2", "x");
  write_bytes(folder / "of tokens/a.bin", "x");
  EXPECT_THAT(message_of<InvalidArgument>([&] { open_source(folder / "of tokens", CorpusFormat::kAuto, {}); }),
              AllOf(HasSubstr("a.bin' is a file of tokens"), HasSubstr("PREFIX.idx")));
  EXPECT_THAT(message_of<InvalidArgument>([&] { open_source(folder / "of", CorpusFormat::kAuto, {}); }),
              AllOf(HasSubstr("texts/b.bz2' is compressed"), HasSubstr("data.extensions")));
  EXPECT_EQ(open_source(folder / "of", CorpusFormat::kAuto, {".txt"})->num_tokens(), 1);
}

struct WrongCorpus {
  const char* name;
  const char* path;
  const char* says;
  const char* says_too;
};

class WrongText : public ::testing::TestWithParam<WrongCorpus> {};

TEST_P(WrongText, IsNamed) {
  const TemporaryFolder folder;
  write_bytes(folder / "empty.txt", "");
  write_bytes(folder / "short.txt", "0123456789");
  write_bytes(folder / "hollow/empty.txt", "");
  write_bytes(folder / "half.bin", "x");
  write_bytes(folder / "half2.idx", "x");
  write_bytes(folder / "both", "x");
  write_bytes(folder / "both.bin", "x");
  write_bytes(folder / "both.idx", "x");
  ASSERT_EQ(::mkfifo((folder / "pipe").c_str(), 0600), 0);
  DataConfig config = data_config(*GetParam().path == '\0' ? fs::path() : folder / GetParam().path);
  if (std::string(GetParam().name) == "NoSuchEnding") config.extensions = {".h"};
  EXPECT_THAT(message_of<InvalidArgument>([&] { SequenceLoader(config, 10, 256); }),
              AllOf(HasSubstr(GetParam().says), HasSubstr(GetParam().says_too)));
}
INSTANTIATE_TEST_SUITE_P(
    Corpora, WrongText,
    ::testing::Values(WrongCorpus{"NotSet", "", "no corpus", "data.path"},
                      WrongCorpus{"Missing", "absent", "absent'", "No such file"},
                      WrongCorpus{"ParentIsFile", "short.txt/x", "short.txt/x", "Not a directory"},
                      WrongCorpus{"EmptyFile", "empty.txt", "empty.txt' is empty", "data.path"},
                      WrongCorpus{"HollowFolder", "hollow", "hollow' is empty", "no file"},
                      WrongCorpus{"NoSuchEnding", ".", "is empty", "data.extensions"},
                      WrongCorpus{"Pipe", "pipe", "pipe", "neither a file nor a folder"},
                      WrongCorpus{"OneTokenShort", "short.txt", "10 tokens", "smaller training.seq_len"},
                      WrongCorpus{"IndexMissing", "half", "half.idx' is missing", "pair"},
                      WrongCorpus{"IndexMissingBin", "half.bin", "half.idx' is missing", "data.format"},
                      WrongCorpus{"BinMissing", "half2", "half2.bin' is missing", "pair"},
                      WrongCorpus{"TextAndPair", "both", "both' is there as text and", "data.format"}),
    [](const auto& instance) { return instance.param.name; });

TEST(WrongConfiguration, IsNamed) {
  const TemporaryFolder folder;
  write_bytes(folder / "text", numbered_text(200));
  const auto error_with = [&](auto change, int64_t seq_len = 10, int64_t vocab_size = 256) {
    DataConfig config = data_config(folder / "text");
    change(config);
    return message_of<InvalidArgument>([&] { SequenceLoader(config, seq_len, vocab_size); });
  };
  const auto nothing = [](DataConfig& /*config*/) {};
  EXPECT_THAT(error_with(nothing, 0), HasSubstr("at least 1"));
  EXPECT_THAT(error_with(nothing, 200), HasSubstr("200 tokens"));
  EXPECT_THAT(error_with(nothing, INT64_MAX), HasSubstr("9223372036854775807"));
  EXPECT_THAT(error_with(nothing, 10, 0), HasSubstr("at least 1"));
  EXPECT_THAT(error_with([](DataConfig& config) { config.validation_fraction = 1; }), HasSubstr("less than 1"));
  EXPECT_THAT(error_with([](DataConfig& config) { config.validation_fraction = NAN; }), HasSubstr("nan"));
  EXPECT_THAT(error_with([](DataConfig& config) { config.validation_fraction = 0.1; }, 150),
              HasSubstr("data.validation_path"));
  EXPECT_THAT(error_with([&](DataConfig& config) { config.validation_path = folder / "absent"; }), HasSubstr("absent"));
  write_bytes(folder / "tiny", "x");
  EXPECT_THAT(error_with([&](DataConfig& config) { config.validation_path = folder / "tiny"; }),
              AllOf(HasSubstr("tiny"), HasSubstr("validation")));
}

TEST(WrongToken, IsNamedWithFileAndPosition) {
  const TemporaryFolder folder;
  write_bytes(folder / "a", std::string(50, 'a'));
  write_bytes(folder / "b", std::string(30, 'a') + "\xff" + std::string(69, 'a'));
  const SequenceLoader loader(data_config(folder.path()), 149, 255);
  EXPECT_THAT(message_of<InvalidArgument>([&] { loader.training_sequence(0); }),
              AllOf(HasSubstr("token 255"), HasSubstr("byte 30 of"), HasSubstr("/b'"), HasSubstr("vocab_size = 255")));
}

}  // namespace
}  // namespace lighthouse

// What lighthouse-prepare leaves beside a corpus. tests/python/test_prepare_to_model.py has it write one.
#include "train/prepared_corpus.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <nlohmann/json.hpp>

#include "cpp/data/corpus.h"
#include "cpp/io/temporary_folder.h"
#include "io/errors.h"
#include "lighthouse/check.h"
#include "model/tokenizer_files.h"

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

/// What it puts before a text is what was put before documents, whatever the one did that it was made of.
TEST_F(PreparedCorpus, ItsTokenizerIsKeptAsTrained) {
  const auto kept_of = [&](const std::string& post_processor, const std::string& begin) {
    write_bytes(tokens() / "manifest.json",
                R"({"format": "lighthouse-prepare 1", "vocab_size": 400, "data": {"train": {}},
                    "made_of": {"tokenizer": {"kind": "tokenizers", "begin_of_text": )" +
                    begin + "}}}");
    write_bytes(tokens() / "tokenizer" / "tokenizer.json",
                R"({"model": {"vocab": {"post_processor": 1, "\\\"": 2}}, "post_processor" : )" + post_processor +
                    R"(, "version": "1.0"})");
    write_bytes(tokens() / "tokenizer" / "tokenizer_config.json",
                R"({"tokenizer_class": "LlamaTokenizerFast", "add_bos_token": true, "eos_token": "</s>",
                    "chat_template": "{{ messages }}"})");
    write_bytes(tokens() / "tokenizer" / "chat_template.jinja", "{{ messages }}");
    keep(tokens() / "train");
    EXPECT_FALSE(fs::exists(kept() / "chat_template.jinja"));
    const auto config = nlohmann::json::parse(read_bytes(kept() / "tokenizer_config.json"));
    EXPECT_EQ(config, nlohmann::json::parse(R"({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "</s>",
                                                "model_input_names": ["input_ids", "attention_mask"]})"));
    const auto tokenizer = nlohmann::json::parse(read_bytes(kept() / "tokenizer.json"));
    EXPECT_EQ(tokenizer["model"]["vocab"].size(), 2U);
    EXPECT_EQ(tokenizer["version"], "1.0");
    return tokenizer["post_processor"];
  };
  const std::string begins =
      R"({"type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<s>", "type_id": 0}}],
                                 "pair": [], "special_tokens": {"a,]}": "b"}})";
  const std::string bytes = R"({"type": "ByteLevel", "trim_offsets": false})";
  const std::string both = R"({"type": "Sequence", "processors": [)" + bytes + ", " + begins + "]}";
  EXPECT_EQ(kept_of("null", "null"), nullptr);
  EXPECT_EQ(kept_of(begins, "null"), nullptr);
  EXPECT_EQ(kept_of(both, "null"), nlohmann::json::parse(bytes));
  const std::string begin = R"({"id": 7, "token": "<begin>"})";
  for (const std::string& before : {std::string("null"), begins}) {
    const nlohmann::json made = kept_of(before, begin);
    EXPECT_EQ(made["single"], nlohmann::json::parse(R"([{"SpecialToken": {"id": "<begin>", "type_id": 0}},
                                                        {"Sequence": {"id": "A", "type_id": 0}}])"));
    EXPECT_EQ(made["special_tokens"],
              nlohmann::json::parse(R"({"<begin>": {"id": "<begin>", "ids": [7], "tokens": ["<begin>"]}})"));
  }
  EXPECT_EQ(kept_of(both, begin)["processors"].size(), 2U);
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

/// The model's tokens must have their numbers in the corpus's tokenizer, whatever the files look like.
TEST_F(PreparedCorpus, HasTheTokenizerOfTheModel) {
  const fs::path model = folder_ / "model";
  fs::create_directories(model);
  const auto check = [&](const std::string& of_corpus, const std::string& of_model) {
    write_bytes(tokens() / "tokenizer" / "tokenizer.json", of_corpus);
    write_bytes(model / "tokenizer.json", of_model);
    try {
      check_tokenizer(data_config(tokens() / "train"), model, 400);
    } catch (const InvalidArgument& error) {
      return std::string(error.what());
    }
    return std::string();
  };
  const std::string two = R"({"model": {"vocab": {"a": 0, "b": 1}}})";
  EXPECT_EQ(check(two, two), "");
  EXPECT_EQ(check(two, R"({"version": "2", "model": {"vocab": {"b": 1, "a": 0}}, "added_tokens": []})"), "");
  EXPECT_EQ(check(two, R"({"model": {"vocab": [["a", -1.5], ["b", -2.5]]}})"), "");
  EXPECT_EQ(check(R"({"model": {"vocab": {"a": 0, "b": 1, "more": 2}}})", two), "");
  EXPECT_THAT(check(two, R"({"model": {"vocab": {"b": 0, "a": 1}}})"),
              HasSubstr("token \"b\" has number 0 there and 1 here"));
  EXPECT_THAT(check(two, R"({"model": {"vocab": {"a": 0, "b": 1}}, "added_tokens": [{"id": 2, "content": "<end>"}]})"),
              AllOf(HasSubstr("token \"<end>\" has number 2 there and none here"),
                    HasSubstr("lighthouse-prepare --tokenizer")));
  for (const char* broken :
       {"{", "[]", "{}", R"({"model": {}})", R"({"model": {"vocab": 1}})", R"({"model": {"vocab": {"a": -1}}})",
        R"({"model": {"vocab": [1]}})", R"({"model": {"vocab": {}}, "added_tokens": [{"id": 2}]})"}) {
    write_bytes(model / "tokenizer.json", broken);
    EXPECT_THROW(check_tokenizer(data_config(tokens() / "train"), model, 400), DamagedFile) << broken;
  }
}

// A vocabulary of 128,000 tokens took 30 s on a busy machine: each name was looked for among all before it.
TEST(TokenizerFiles, LargeVocabulariesAreReadInLinearTime) {
  const TemporaryFolder folder;
  std::string text = R"({"model": {"vocab": {"a": 0)";
  for (int64_t token = 1; token < 128'000; ++token) {
    text += ", \"t" + std::to_string(token) + "\": " + std::to_string(token);
  }
  write_bytes(folder / "tokenizer.json", text + "}}}");
  const auto begin = std::chrono::steady_clock::now();
  EXPECT_TRUE(has_text_tokenizer(folder.path()));
  const std::chrono::duration<double> elapsed = std::chrono::steady_clock::now() - begin;
  EXPECT_LT(elapsed.count(), 3) << "0.1 s on an idle machine, without sanitizers";
  write_bytes(folder / "tokenizer.json", byte_tokenizer().dump());
  EXPECT_FALSE(has_text_tokenizer(folder.path()));
  write_bytes(folder / "tokenizer.json", std::string(58'000, '['));
  EXPECT_TRUE(has_text_tokenizer(folder.path()));
}

/// Nobody knows whether they are the same.
TEST_F(PreparedCorpus, RefusesATokenizerThatCannotBeCompared) {
  const fs::path model = folder_ / "model";
  fs::create_directories(model);
  const auto check = [&](int64_t vocab_size) { check_tokenizer(data_config(tokens() / "train"), model, vocab_size); };
  EXPECT_NO_THROW(check(400)) << "a model without a tokenizer";
  EXPECT_THAT(message_of<InvalidArgument>([&] { check(448); }),
              AllOf(HasSubstr("the model has none, and 448 tokens, of which the tokenizer of the corpus has 400"),
                    HasSubstr("copy the files of '" + (tokens() / "tokenizer").string())));
  write_bytes(model / "tokenizer.model", "pieces");
  EXPECT_THAT(message_of<InvalidArgument>([&] { check(400); }),
              AllOf(HasSubstr("tokenizer.json here and tokenizer.model there, none can be compared"),
                    HasSubstr("lighthouse-prepare --tokenizer"), HasSubstr("copy the files of '")));
  fs::copy_file(tokens() / "tokenizer" / "tokenizer.json", model / "tokenizer.json");
  EXPECT_NO_THROW(check(400)) << "which the user has done who knows better";
}

TEST_F(PreparedCorpus, IsNoTextForAModelWithATokenizer) {
  write_bytes(folder_ / "text.txt", "text");
  write_bytes(folder_ / "model" / "tokenizer.json", "tokens");
  DataConfig data = data_config(folder_ / "text.txt");
  EXPECT_THAT(message_of<InvalidArgument>([&] { check_tokenizer(data, folder_ / "model", 400); }),
              AllOf(HasSubstr("data.path: '"), HasSubstr("is text"), HasSubstr("lighthouse-prepare --tokenizer")));
  EXPECT_NO_THROW(check_tokenizer(data, run(), 400));
}

/// Its losses would be of other words, or the first validation would end the run.
TEST_F(PreparedCorpus, IsValidatedOnTokensOfItsOwn) {
  const auto manifest = [&](const std::string& folder, const std::string& sha, int64_t tokens) {
    write_bytes(folder_ / folder / "manifest.json",
                R"({"format": "lighthouse-prepare 1", "data": {"train": {}}, "vocab_size": )" + std::to_string(tokens) +
                    R"(, "made_of": {"tokenizer": {"sha256": ")" + sha + R"("}}})");
    write_bytes(folder_ / folder / "train.bin", "");
    write_bytes(folder_ / folder / "train.idx", "");
  };
  manifest("a", "one", 400);
  manifest("b", "one", 400);
  manifest("c", "another", 300);
  write_bytes(folder_ / "text.txt", "text");
  DataConfig data = data_config(folder_ / "a" / "train");
  const auto refusal = [&](const std::string& validation, int64_t vocab_size = 400) {
    data.validation_path = (folder_ / validation).string();
    return message_of<InvalidArgument>([&] { check_vocabulary(data, vocab_size); });
  };
  data.validation_path = (folder_ / "b" / "train").string();
  EXPECT_NO_THROW(check_vocabulary(data, 400));
  EXPECT_THAT(refusal("c/train"), AllOf(HasSubstr("data.validation_path: the tokenizer of"), HasSubstr("c/train")));
  EXPECT_THAT(refusal("text.txt"), AllOf(HasSubstr("data.validation_path: '"), HasSubstr("text.txt' is text")));
  data.path = (folder_ / "text.txt").string();
  EXPECT_THAT(refusal("b/train"), HasSubstr("text.txt' is text"));
  data.path = (folder_ / "megatron").string();
  EXPECT_THAT(refusal("b/train", 399), AllOf(HasSubstr("model.vocab_size = 399"), HasSubstr("b/train'")));
}

TEST_F(PreparedCorpus, LackingAPartIsRefused) {
  const auto check = [&] { check_vocabulary(data_config(tokens() / "train"), 400); };
  write_bytes(tokens() / "manifest.json",
              R"({"format": "lighthouse-prepare 1", "vocab_size": 400, "data": {"train": {}},
                  "tokenizer_files": {"tokenizer.json": "", "generation_config.json": ""}})");
  EXPECT_NO_THROW(check());
  for (const char* name : {"generation_config.json", "tokenizer.json"}) {
    const fs::path file = tokens() / "tokenizer" / name;
    fs::rename(file, folder_ / name);
    EXPECT_THAT(message_of<InvalidArgument>(check), AllOf(HasSubstr(name), HasSubstr("' is missing")));
    fs::rename(folder_ / name, file);
  }
  fs::remove_all(tokens() / "tokenizer");
  EXPECT_THAT(message_of<InvalidArgument>(check), HasSubstr("' is missing"));
  write_bytes(tokens() / "manifest.json", std::string(kManifest).substr(0, 50));
  EXPECT_THAT(message_of<DamagedFile>(check), AllOf(HasSubstr("manifest.json"), HasSubstr("copy the folder anew")));
}

TEST_F(PreparedCorpus, OfSentencepieceHasTheBytesOfTheModel) {
  const fs::path model = folder_ / "model";
  fs::create_directories(model);
  fs::remove(tokens() / "tokenizer" / "tokenizer.json");
  const auto check = [&] { check_tokenizer(data_config(tokens() / "train"), model, 400); };
  EXPECT_NO_THROW(check()) << "a model without a tokenizer";
  write_bytes(tokens() / "tokenizer" / "tokenizer.model", "pieces");
  write_bytes(model / "tokenizer.model", "pieces");
  EXPECT_NO_THROW(check());
  write_bytes(model / "tokenizer.model", "other");
  EXPECT_THAT(message_of<InvalidArgument>(check), HasSubstr("tokenizer.model has other bytes"));
}

TEST_F(PreparedCorpus, IsAFolderOfTwoDataSets) {
  EXPECT_FALSE(prepared_folder(run()));
  const auto manifest = [&](const std::string& data) {
    write_bytes(tokens() / "manifest.json", R"({"format": "lighthouse-prepare 1", "data": )" + data + "}");
    return prepared_folder(tokens()).value();
  };
  EXPECT_EQ(manifest(R"({"train": {}})").train, tokens() / "train");
  EXPECT_EQ(manifest(R"({"train": {}})").validation, "");
  EXPECT_EQ(manifest(R"({"train": {}, "validation": {"statistics": {"tokens": 12}}})").num_validation_tokens, 12);
  EXPECT_THROW(manifest(R"({"train": {}, "validation": {}})"), DamagedFile);
}

}  // namespace
}  // namespace lighthouse

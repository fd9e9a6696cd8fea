#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <map>
#include <set>

#include "cpp/data/corpus.h"
#include "data/sequence_loader.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {
namespace fs = std::filesystem;
using ::testing::HasSubstr;

/// A folder of one file for each length; file n consists of the byte n + 1, then bytes that count.
void write_documents(const fs::path& folder, const std::vector<size_t>& lengths) {
  for (size_t number = 0; number < lengths.size(); ++number) {
    std::string text(lengths[number], '\0');
    for (size_t place = 0; place < text.size(); ++place)
      text[place] = static_cast<char>(place == 0 ? number + 1 : 100 + place % 100);
    write_bytes(folder / std::to_string(100 + number), text);
  }
}

/// What the sequences of an epoch say, put together again: each document's tokens in the order in which they came.
struct Epoch {
  std::vector<int64_t> stream;
  std::vector<int64_t> targets;
  std::set<int64_t> starts;  ///< where a document of a sequence begins

  Epoch(const SequenceLoader& loader, int64_t epoch, int64_t seq_len) {
    for (int64_t place = 0; place < loader.sequences_per_epoch(); ++place) {
      add(loader.training_sequence(epoch * loader.sequences_per_epoch() + place), seq_len);
    }
  }
  void add(const Sequence& sequence, int64_t seq_len) {
    ASSERT_EQ(static_cast<int64_t>(sequence.inputs.size()), seq_len);
    ASSERT_EQ(static_cast<int64_t>(sequence.targets.size()), seq_len);
    ASSERT_GE(sequence.cu_seqlens.size(), 2U);
    EXPECT_EQ(sequence.cu_seqlens.front(), 0);
    EXPECT_EQ(sequence.cu_seqlens.back(), seq_len);
    for (size_t document = 1; document < sequence.cu_seqlens.size(); ++document) {
      EXPECT_LT(sequence.cu_seqlens[document - 1], sequence.cu_seqlens[document]);
      starts.insert(static_cast<int64_t>(stream.size()) + sequence.cu_seqlens[document - 1]);
    }
    stream.insert(stream.end(), sequence.inputs.begin(), sequence.inputs.end());
    targets.insert(targets.end(), sequence.targets.begin(), sequence.targets.end());
  }
};

/// Follows the stream of an epoch document by document; returns how often each was seen from its beginning.
std::map<int64_t, int> follow(const Epoch& epoch, const std::vector<size_t>& lengths, int64_t seq_len) {
  std::map<int64_t, int> seen;
  size_t place = 0;
  while (place < epoch.stream.size()) {
    const int64_t number = epoch.stream[place] - 1;
    const size_t length = lengths.at(static_cast<size_t>(number));
    ++seen[number];
    for (size_t inside = 0; inside < length && place < epoch.stream.size(); ++inside, ++place) {
      if (inside > 0) {
        EXPECT_EQ(epoch.stream[place], static_cast<int64_t>(100 + inside % 100));
      }
      const bool starts = inside == 0 || place % static_cast<size_t>(seq_len) == 0;
      EXPECT_EQ(epoch.starts.contains(static_cast<int64_t>(place)), starts) << "at " << place;
      const bool last = inside + 1 == length;
      EXPECT_EQ(epoch.targets[place], last ? kIgnoredTarget : static_cast<int64_t>(100 + (inside + 1) % 100)) << place;
    }
  }
  return seen;
}

struct Lengths {
  std::vector<size_t> lengths;
  int64_t seq_len;
};
class Documents : public ::testing::TestWithParam<Lengths> {};

TEST_P(Documents, AreWholeAndEveryEpochHasEachOnce) {
  const auto& [lengths, seq_len] = GetParam();
  const TemporaryFolder folder;
  write_documents(folder.path(), lengths);
  const SequenceLoader loader(data_config(folder.path(), Packing::kDocuments), seq_len, 256);
  size_t total = 0;
  for (const size_t length : lengths) total += length >= 2 ? length : 0;
  EXPECT_EQ(loader.num_training_tokens(), static_cast<int64_t>(total));
  EXPECT_EQ(loader.sequences_per_epoch(), static_cast<int64_t>(total) / seq_len);
  for (int64_t number = 0; number < 3; ++number) {
    const Epoch epoch(loader, number, seq_len);
    size_t seen_tokens = 0;
    for (const auto& [document, times] : follow(epoch, lengths, seq_len)) {
      EXPECT_EQ(times, 1) << "document " << document;
      EXPECT_GE(lengths[static_cast<size_t>(document)], 2U);
      seen_tokens += lengths[static_cast<size_t>(document)];
    }
    EXPECT_GE(seen_tokens + static_cast<size_t>(seq_len), total) << "only what fills no sequence may be missing";
  }
}
INSTANTIATE_TEST_SUITE_P(Sizes, Documents,
                         ::testing::Values(Lengths{{64}, 64}, Lengths{{64, 64, 64}, 64},
                                           Lengths{{65, 63, 1, 2, 500, 3, 64}, 64}, Lengths{{1000}, 64},
                                           Lengths{std::vector<size_t>(60, 2), 7},
                                           Lengths{std::vector<size_t>(90, 30), 1000}, Lengths{{2, 3, 4, 5}, 1},
                                           Lengths{{0, 5, 0, 1, 9, 1}, 4}));

TEST(DocumentOrder, DiffersByEpochAndIsReproducibleInAnyOrderOfReading) {
  const TemporaryFolder folder;
  write_documents(folder.path(), std::vector<size_t>(80, 20));
  const DataConfig config = data_config(folder.path(), Packing::kDocuments);
  const SequenceLoader loader(config, 20, 256);
  EXPECT_NE(Epoch(loader, 0, 20).stream, Epoch(loader, 1, 20).stream);
  const SequenceLoader backwards(config, 20, 256);
  for (int64_t index = 5 * 80 - 1; index >= 0; index -= 7) {
    EXPECT_EQ(loader.training_sequence(index).inputs, backwards.training_sequence(index).inputs);
  }
}

class DocumentValidation : public ::testing::TestWithParam<double> {};

TEST_P(DocumentValidation, TakesWholeDocumentsFromTheEnd) {
  const TemporaryFolder folder;
  const std::vector<size_t> lengths(40, 25);
  write_documents(folder.path(), lengths);
  const SequenceLoader loader(data_config(folder.path(), Packing::kDocuments, GetParam()), 20, 256);
  const auto first_validation = 40 - std::max<int64_t>(static_cast<int64_t>(GetParam() * 40 + 0.999), 1);
  for (int64_t number = 0; number < 2; ++number) {
    const Epoch epoch(loader, number, 20);
    for (const auto& [document, times] : follow(epoch, lengths, 20)) EXPECT_LT(document, first_validation);
  }
  ASSERT_EQ(loader.num_validation_sequences(), (40 - first_validation) * 25 / 20);
  for (int64_t index = 0; index < loader.num_validation_sequences(); ++index) {
    const Sequence sequence = loader.validation_sequence(index);
    EXPECT_EQ(sequence.inputs, loader.validation_sequence(index).inputs);
    for (const int64_t token : sequence.inputs) EXPECT_TRUE(token >= 100 || token > first_validation) << token;
  }
  EXPECT_EQ(loader.validation_sequence(0).inputs[0], first_validation + 1);  // in the corpus's order
  EXPECT_EQ(loader.num_training_tokens(), first_validation * 25);
}
INSTANTIATE_TEST_SUITE_P(Fractions, DocumentValidation, ::testing::Values(1e-9, 0.025, 0.1, 0.5, 0.9));

TEST(DocumentValidationOf, ASingleDocumentIsRefused) {
  const TemporaryFolder folder;
  write_documents(folder.path(), {1000});
  EXPECT_THAT(message_of<InvalidArgument>(
                  [&] { SequenceLoader(data_config(folder.path(), Packing::kDocuments, 0.1), 20, 256); }),
              HasSubstr("data.packing = \"chunks\""));
}

}  // namespace
}  // namespace lighthouse

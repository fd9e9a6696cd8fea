// How the CUDA scorer `gla` cuts rows into segments, exhaustively for small rows.
#include "stages/gla_segments.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <map>
#include <set>
#include <string>
#include <vector>

namespace lighthouse {
namespace {

/// Every token lies in one segment of its chain, and neighbours of a chain hand over one state that nobody else uses.
void check_segments(const GlaSegments& segments) {
  std::vector<int> times_covered(static_cast<size_t>(segments.seq_len));
  std::map<int64_t, int64_t> reader_of;  // state -> first token of the segment that reads it
  std::map<int64_t, int64_t> writer_of;  // state -> first token of the segment that writes it
  for (int64_t item = 0; item < segments.num_items(); ++item) {
    const GlaSegment segment = segments.segment(item);
    if (segment.num_tokens <= 0) continue;
    ASSERT_LE(segment.num_tokens, segments.segment_len);
    int64_t document = 0;
    while (segments.bound(document + 1) <= segment.first_token) ++document;
    for (int64_t i = 0; i < segment.num_tokens; ++i) {
      const int64_t token = segment.first_token + i * segments.dilation;
      ASSERT_LT(token, segments.bound(document + 1));
      ++times_covered[static_cast<size_t>(token)];
    }
    const int64_t after = segment.first_token + segment.num_tokens * segments.dilation;
    ASSERT_EQ(segment.last, after >= segments.bound(document + 1));
    ASSERT_EQ(segment.index * segments.span(),
              segment.first_token - segments.bound(document) -
                  (segment.first_token - segments.bound(document)) % segments.dilation);
    const bool alone_reading = segment.index == 0 || reader_of.emplace(segment.state_in, segment.first_token).second;
    const bool alone_writing = segment.last || writer_of.emplace(segment.state_out, segment.first_token).second;
    ASSERT_TRUE(alone_reading && alone_writing);
  }
  for (const int times : times_covered) ASSERT_EQ(times, 1);
  ASSERT_EQ(reader_of.size(), writer_of.size());
  for (const auto& [state, writer] : writer_of) {
    ASSERT_GE(state, 0);
    ASSERT_LT(state, segments.num_states());
    ASSERT_EQ(reader_of.at(state), writer + segments.span());
  }
  std::set<int64_t> scanned;
  for (int64_t first = 0; first < segments.num_states(); ++first) {
    for (int64_t i = 0; i < segments.chain_states(first); ++i) {
      const int64_t state = first + i * segments.dilation;
      ASSERT_TRUE(scanned.insert(state).second);
      ASSERT_TRUE(writer_of.contains(state));
      ASSERT_EQ(writer_of.at(state), writer_of.at(first) + i * segments.span());
    }
  }
  ASSERT_EQ(scanned.size(), writer_of.size());
}

TEST(GlaSegments, CoverOneDocument) {
  for (int64_t seq_len = 1; seq_len <= 60; ++seq_len) {
    for (int64_t dilation = 1; dilation <= std::min<int64_t>(seq_len, 6); ++dilation) {
      for (int64_t segment_len = 1; segment_len <= 9; ++segment_len) {
        SCOPED_TRACE("N=" + std::to_string(seq_len) + " dilation=" + std::to_string(dilation) +
                     " segment=" + std::to_string(segment_len));
        check_segments({nullptr, 1, seq_len, dilation, segment_len});
        if (HasFatalFailure()) return;
      }
    }
  }
}

TEST(GlaSegments, CoverPackedDocuments) {
  constexpr int32_t kLength = 17;
  for (int32_t a = 0; a <= kLength; ++a) {
    for (int32_t b = a; b <= kLength; ++b) {
      for (int32_t c = b; c <= kLength; ++c) {
        const int32_t bounds[] = {0, a, b, c, kLength};
        for (int64_t dilation = 1; dilation <= 4; ++dilation) {
          for (int64_t segment_len = 1; segment_len <= 4; ++segment_len) {
            SCOPED_TRACE("bounds " + std::to_string(a) + " " + std::to_string(b) + " " + std::to_string(c) +
                         " dilation=" + std::to_string(dilation) + " segment=" + std::to_string(segment_len));
            check_segments({bounds, 4, kLength, dilation, segment_len});
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }
}

TEST(GlaSegments, AreWholeChunks) {
  for (const int64_t seq_len : {1, 100, 4096, 98304, 1 << 20, (1 << 30)}) {
    const int64_t segment_len = gla_segment_len(1, seq_len, 8);
    EXPECT_EQ(segment_len % kGlaChunk, 0);
    EXPECT_GE(segment_len, 4 * kGlaChunk);
    EXPECT_LE(segment_len, 64 * kGlaChunk);
  }
  EXPECT_EQ(gla_segment_len(1, 98304, 8), 32 * kGlaChunk);
}

/// ldmatrix reads the same unit of eight successive rows, or stores one, without two of them in one group of banks.
TEST(GlaSegments, SwizzleSpreadsRowsOverBanks) {
  for (const int units_per_row : {8, 16}) {
    std::set<int> seen;
    for (int row = 0; row < 64; ++row) {
      for (int unit = 0; unit < units_per_row; ++unit) {
        const int place = swizzled_unit(row, unit, units_per_row);
        EXPECT_EQ(place / units_per_row, row);
        EXPECT_TRUE(seen.insert(place).second);
        if (row % 8 != 0) continue;
        std::set<int> banks;
        for (int i = 0; i < 8; ++i) banks.insert(swizzled_unit(row + i, unit, units_per_row) % 8);
        EXPECT_EQ(banks.size(), 8U);
      }
    }
  }
}

}  // namespace
}  // namespace lighthouse

// Runs of tiles as plans of their own (part_of): one behind another they make the bits of the whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "lighthouse/check.h"
#include "row_maps.h"
#include "support/threads.h"

namespace lighthouse {
namespace {

constexpr Order kPlain = Order::kTokensFirst;

/// Positions [begin, end) of a tensor [B, length, heads, channels].
Tensor slice(const Tensor& x, int64_t begin, int64_t end) {
  Tensor part(x.batch, end - begin, x.heads, x.channels);
  for (int64_t b = 0; b < x.batch; ++b) {
    std::copy_n(x.at(b, begin, 0), (end - begin) * x.heads * x.channels, part.at(b, 0, 0));
  }
  return part;
}
Triple slice(const Triple& x, int64_t begin, int64_t end) {
  return {slice(x.q, begin, end), slice(x.k, begin, end), slice(x.v, begin, end)};
}
std::vector<float> slice(const std::vector<float>& scores, int64_t heads, int64_t begin, int64_t end) {
  const auto length = static_cast<int64_t>(scores.size()) / heads;
  std::vector<float> part;
  for (int64_t head = 0; head < heads; ++head) {
    part.insert(part.end(), scores.begin() + head * length + begin, scores.begin() + head * length + end);
  }
  return part;
}

bool same_bits(const Tensor& a, const Tensor& b) {
  return a.values.size() == b.values.size() &&
         std::memcmp(a.values.data(), b.values.data(), a.values.size() * sizeof(double)) == 0;
}

/// A part, and where its tokens and rows stand in the whole.
struct Part {
  SequencePlan plan;
  int64_t token_begin, row_begin;
  int64_t token_end() const { return token_begin + plan.seq_len; }
  int64_t row_end() const { return row_begin + plan.gathered_len; }
};
std::vector<Part> cut(const SequencePlan& whole, int64_t num_parts, CaseGenerator& random) {
  const auto num_tiles = static_cast<int64_t>(whole.tiles.size());
  std::vector<int64_t> bounds{0, num_tiles};
  while (static_cast<int64_t>(bounds.size()) <= std::min(num_parts, num_tiles)) {
    const int64_t bound = random.below(num_tiles);
    if (std::find(bounds.begin(), bounds.end(), bound) == bounds.end()) bounds.push_back(bound);
  }
  std::sort(bounds.begin(), bounds.end());
  std::vector<Part> parts;
  int64_t token = 0;
  int64_t row = 0;
  for (size_t i = 0; i + 1 < bounds.size(); ++i) {
    parts.push_back({part_of(whole, bounds[i], bounds[i + 1]), token, row});
    token = parts.back().token_end();
    row = parts.back().row_end();
  }
  EXPECT_EQ(token, whole.seq_len);
  EXPECT_EQ(row, whole.gathered_len);
  return parts;
}

/// The whole's number of a part's flat entry in one of its rows.
int64_t entry_of_whole(const SequencePlan& whole, const Part& part, int64_t row, int64_t flat) {
  const auto of_run = std::find_if(part.plan.documents.begin(), part.plan.documents.end(),
                                   [&](const Document& run) { return row < run.row_begin + run.num_rows; });
  const int64_t token = part.token_begin + of_run->token_begin;
  const auto document = std::find_if(whole.documents.begin(), whole.documents.end(), [&](const Document& candidate) {
    return token < candidate.token_begin + candidate.pyramid.seq_len;
  });
  const Pyramid& pyramid = document->pyramid;
  const Entry entry = entry_at(of_run->pyramid, flat - of_run->entry_begin);
  const int shift = pyramid.shift(pyramid.num_levels - 1 - entry.level);
  return document->entry_begin + pyramid.entry_offset(entry.level) + entry.index +
         (of_run->tiles.coarse_begin << shift);
}

/// carried of the part before, or no data.
StridedArray carried_by(const Maps& before, const Tensor& rows, DType dtype) {
  const StageCase& c = before.c;
  const StridedArray from(dtype, kPlain, rows);
  StridedArray carried(dtype, Order::kOdd, c.batch, std::max<int64_t>(c.config.num_levels - 1, 1), c.num_heads,
                       c.head_dim);
  carry_rows({from.const_view(), carried.view(), before.slots.data(), &before.plan, dtype, c.batch, c.num_heads,
              c.num_kv_heads, c.head_dim},
             test_support::threaded_for(2));
  return carried;
}

struct Whole {
  Maps maps;
  std::vector<float> s_qk, s_kq;
  Triple x, y;  ///< tokens; rows
};
Whole make_whole(const StageCase& c, CaseGenerator& random) {
  const int64_t size = c.batch * c.num_kv_heads * c.seq_len;
  const std::vector<float> s_qk = random.scores(size);
  const std::vector<float> s_kq = random.scores(size);
  const auto normals = [&](auto... sizes) { return random.normals(sizes...); };
  const SequencePlan plan = c.plan();
  return {make_maps(c, plan, s_qk, s_kq), s_qk, s_kq, make_triple(c, c.seq_len, normals),
          make_triple(c, plan.gathered_len, normals)};
}

void expect_selection_of_whole(const Whole& whole, const Part& part, const Maps& maps) {
  const StageCase& c = whole.maps.c;
  for (int64_t head = 0; head < c.batch * c.num_kv_heads; ++head) {
    const int32_t* of_whole = whole.maps.selection.entries.data() + head * whole.maps.plan.gathered_len;
    const int32_t* of_part = maps.selection.entries.data() + head * part.plan.gathered_len;
    for (int64_t row = 0; row < part.plan.gathered_len; ++row) {
      ASSERT_EQ(entry_of_whole(whole.maps.plan, part, row, of_part[row]), of_whole[part.row_begin + row]);
    }
  }
}

void expect_bits_of_whole(const Whole& whole, const std::vector<Part>& parts, DType dtype) {
  const StageCase& c = whole.maps.c;
  const ParallelFor threads = test_support::threaded_for(3);
  const TripleArrays rows = run_gather(whole.maps, whole.x, dtype, kPlain, kPlain, threads);
  const TripleArrays dx = run_gather_backward(whole.maps, whole.y, dtype, kPlain, kPlain, threads);
  const Tensor o = run_scatter(whole.maps, whole.y.q, dtype, kPlain, kPlain, threads).tensor();
  const Tensor drows = run_scatter_backward(whole.maps, whole.x.q, dtype, kPlain, kPlain, threads).tensor();
  std::vector<StridedArray> carried;  // by the part before
  for (size_t i = 0; i < parts.size(); ++i) {
    SCOPED_TRACE("part " + std::to_string(i) + " of " + std::to_string(parts.size()));
    const Part& part = parts[i];
    const int64_t heads = c.batch * c.num_kv_heads;
    const Maps maps = make_maps(c, part.plan, slice(whole.s_qk, heads, part.token_begin, part.token_end()),
                                slice(whole.s_kq, heads, part.token_begin, part.token_end()));
    expect_selection_of_whole(whole, part, maps);
    const Triple x = slice(whole.x, part.token_begin, part.token_end());
    const Triple y = slice(whole.y, part.row_begin, part.row_end());
    const TripleArrays part_rows = run_gather(maps, x, dtype, kPlain, kPlain, threads);
    ASSERT_TRUE(same_bits(part_rows.q.tensor(), slice(rows.q.tensor(), part.row_begin, part.row_end())));
    ASSERT_TRUE(same_bits(part_rows.v.tensor(), slice(rows.v.tensor(), part.row_begin, part.row_end())));
    const TripleArrays part_dx = run_gather_backward(maps, y, dtype, kPlain, kPlain, threads);
    ASSERT_TRUE(same_bits(part_dx.q.tensor(), slice(dx.q.tensor(), part.token_begin, part.token_end())));
    ASSERT_TRUE(same_bits(part_dx.k.tensor(), slice(dx.k.tensor(), part.token_begin, part.token_end())));

    const ConstView from_before = carried.empty() ? ConstView() : carried.back().const_view();
    const Tensor part_o = run_scatter(maps, y.q, dtype, kPlain, kPlain, threads, from_before).tensor();
    ASSERT_TRUE(same_bits(part_o, slice(o, part.token_begin, part.token_end())));
    carried.push_back(carried_by(maps, y.q, dtype));

    const int64_t behind = part.plan.documents.back().tokens_after;
    ASSERT_LE(part.token_end() + behind, c.seq_len);
    const StridedArray after(dtype, Order::kHeadsFirst, slice(whole.x.q, part.token_end(), part.token_end() + behind));
    const Tensor part_drows =
        run_scatter_backward(maps, x.q, dtype, kPlain, kPlain, threads, behind > 0 ? after.const_view() : ConstView())
            .tensor();
    ASSERT_TRUE(same_bits(part_drows, slice(drows, part.row_begin, part.row_end())));
  }
}

TEST(Parts, OneBehindAnotherAreTheBitsOfTheWhole) {
  CaseGenerator random(12);
  int cut_inside = 0;  // documents that a cut goes through, with rows that cross it
  for (int i = 0; i < 70; ++i) {
    StageCase c = random.stage_case(i % 40 == 0 ? 3000 : 500);
    c.config.num_levels = std::min<int64_t>(c.config.num_levels, 5);
    if (c.coarse_span() > 512) c.config.pooling_factor = 2;
    c.config.topk = 4 + random.below(40);
    c.config.tile_topk = 1 + random.below(6);
    c.head_dim = std::min<int64_t>(c.head_dim, 20);
    SCOPED_TRACE("case " + std::to_string(i) + ": " + testing::PrintToString(c));
    const Whole whole = make_whole(c, random);
    for (const int64_t num_parts : {1, 2, 3, 4, 8}) {
      const std::vector<Part> parts = cut(whole.maps.plan, num_parts, random);
      for (const Part& part : parts) cut_inside += part.plan.documents.back().tokens_after > 0 ? 1 : 0;
      expect_bits_of_whole(whole, parts, random.one_of(kDTypes));
      if (testing::Test::HasFatalFailure()) return;
    }
  }
  EXPECT_GT(cut_inside, 150);
}

TEST(Parts, OfAPartAreThoseOfTheWhole) {
  StageCase c{};
  c.config.topk = 20;
  c.config.tile_topk = 2;
  const SequencePlan whole = make_plan(c.config, 1003, std::vector<int64_t>{0, 20, 900, 1003});
  const auto num_tiles = static_cast<int64_t>(whole.tiles.size());
  ASSERT_GE(num_tiles, 8);
  const SequencePlan direct = part_of(whole, 3, 6);
  const SequencePlan twice = part_of(part_of(whole, 2, num_tiles), 1, 4);
  ASSERT_EQ(direct.documents.size(), twice.documents.size());
  EXPECT_EQ(direct.seq_len, twice.seq_len);
  EXPECT_EQ(direct.gathered_len, twice.gathered_len);
  EXPECT_EQ(direct.documents[0].tiles.first, twice.documents[0].tiles.first);
  EXPECT_EQ(direct.documents[0].tiles.coarse_begin, twice.documents[0].tiles.coarse_begin);
  EXPECT_EQ(direct.documents[0].tokens_after, twice.documents[0].tokens_after);
}

TEST(Parts, HaveATileOrMore) {
  StageCase c{};
  const SequencePlan whole = make_plan(c.config, 100);
  EXPECT_THROW(part_of(whole, 0, 0), InvalidArgument);
  EXPECT_THROW(part_of(whole, -1, 1), InvalidArgument);
  EXPECT_THROW(part_of(whole, 0, 2), InvalidArgument);
}

}  // namespace
}  // namespace lighthouse

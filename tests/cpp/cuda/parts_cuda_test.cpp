// Runs of tiles as plans of their own, on the device: one behind another they make the bits of the whole.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <memory>
#include <random>
#include <vector>

#include "cpp/cuda/stage_cases_cuda.h"
#include "lighthouse/cuda_stages.h"

namespace lighthouse {
namespace {

using cuda_test::Case;
using cuda_test::DeviceArray;
using cuda_test::Plans;

/// Index maps of a plan, from its part of the scores [B, H_kv, N].
struct Maps {
  DeviceArray<int32_t> selection, slots;
};
std::vector<float> slice(const std::vector<float>& scores, int64_t heads, int64_t begin, int64_t end) {
  const auto length = static_cast<int64_t>(scores.size()) / heads;
  std::vector<float> part;
  for (int64_t head = 0; head < heads; ++head) {
    part.insert(part.end(), scores.begin() + head * length + begin, scores.begin() + head * length + end);
  }
  return part;
}
std::unique_ptr<Maps> select(const Case& c, const Plans& plans, const std::vector<float>& scores, int64_t begin) {
  const int64_t heads = c.batch * c.num_kv_heads;
  const DeviceArray<float> own(slice(scores, heads, begin, begin + plans.host.seq_len));
  const DeviceArray<float> max_qk(heads * plans.device.num_maxima), max_kq(heads * plans.device.num_maxima);
  const DeviceArray<int32_t> workspace(select_workspace_elements(plans.host, c.batch, c.num_kv_heads));
  std::unique_ptr<Maps> maps(new Maps{DeviceArray<int32_t>(heads * plans.host.gathered_len),
                                      DeviceArray<int32_t>(heads * plans.host.num_slots)});
  pool_scores({own.get(), own.get(), c.batch, c.num_kv_heads, max_qk.get(), max_kq.get()}, plans.device, nullptr);
  select_entries({max_qk.get(), max_kq.get(), c.batch, c.num_kv_heads, c.num_kv_heads, maps->selection.get(),
                  maps->slots.get(), nullptr, workspace.get()},
                 plans.host, plans.device, nullptr);
  EXPECT_EQ(cudaDeviceSynchronize(), cudaSuccess);
  return maps;
}

/// [B, length, H, D] from `begin` on, of an array of the whole.
struct Array {
  DeviceArray<float> values;
  int64_t length, heads, head_dim;

  template <typename AnyView>
  AnyView from(int64_t begin) const {
    return AnyView{values.get() + begin * heads * head_dim, length * heads * head_dim, heads * head_dim, head_dim};
  }
};

/// The maps between tokens and rows of a plan whose tokens and rows begin at these of the whole.
struct Results {
  Array q_rows, k_rows, dq, dk, o, do_rows;

  std::vector<std::vector<float>> host() const {
    return {q_rows.values.host(), k_rows.values.host(), dq.values.host(),
            dk.values.host(),     o.values.host(),      do_rows.values.host()};
  }
};
void run(const Case& c, const Plans& plans, const Maps& maps, const Array& x, const Array& y, int64_t token,
         int64_t row, Results& results, DeviceArray<float>& carried) {
  const int64_t h = c.num_heads;
  const int64_t g = c.num_kv_heads;
  const int64_t dim = c.head_dim;
  const auto in = [](const Array& array, int64_t begin) { return array.from<ConstView>(begin); };
  const auto out = [](const Array& array, int64_t begin) { return array.from<View>(begin); };
  // k and v are both the first H_kv heads of q, so what they write to one place is the same.
  GatherParams gather{in(x, token),
                      in(x, token),
                      in(x, token),
                      out(results.q_rows, row),
                      out(results.k_rows, row),
                      out(results.k_rows, row),
                      maps.selection.get(),
                      &plans.host,
                      DType::kFloat32,
                      c.batch,
                      h,
                      g,
                      dim};
  gather_rows(gather, maps.slots.get(), {}, plans.device, nullptr);
  gather_rows_backward({in(y, row), in(y, row), in(y, row), out(results.dq, token), out(results.dk, token),
                        out(results.dk, token), maps.slots.get(), &plans.host, DType::kFloat32, c.batch, h, g, dim},
                       plans.device, nullptr);
  const int64_t levels = c.config.num_levels - 1;
  const auto carried_view = [&]<typename AnyView>(AnyView) {
    return AnyView{carried.get(), levels * h * dim, h * dim, dim};
  };
  const bool goes_on = plans.host.documents.front().tiles.first > 0;
  scatter_rows({in(y, row), out(results.o, token), maps.slots.get(), &plans.host, DType::kFloat32, c.batch, h, g, dim,
                goes_on ? carried_view(ConstView()) : ConstView()},
               plans.device, nullptr);
  const int64_t behind = plans.host.documents.back().tokens_after;
  scatter_rows_backward({in(x, token), out(results.do_rows, row), maps.selection.get(), &plans.host, DType::kFloat32,
                         c.batch, h, g, dim, behind > 0 ? in(x, token + plans.host.seq_len) : ConstView()},
                        maps.slots.get(), plans.device, nullptr);
  carry_rows({in(y, row), carried_view(View()), maps.slots.get(), &plans.host, DType::kFloat32, c.batch, h, g, dim},
             nullptr);
}

TEST(PartsCuda, OneBehindAnotherAreTheBitsOfTheWhole) {
  if (!cuda_test::have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(13);
  int cut_inside = 0;
  for (int i = 0; i < 60; ++i) {
    Case c = cuda_test::random_case(random, 2000);
    c.config.topk = 8 + static_cast<int64_t>(random() % 24);
    c.config.tile_topk = 1 + static_cast<int64_t>(random() % 4);
    SCOPED_TRACE(testing::PrintToString(c));
    const Plans whole(make_plan(c.config, c.seq_len, c.cu_seqlens));
    const int64_t rows = whole.host.gathered_len;
    const std::vector<float> scores = cuda_test::random_scores(random, c.batch * c.num_kv_heads * c.seq_len);
    const auto normals = [&](int64_t length) {
      std::vector<float> values(c.batch * length * c.num_heads * c.head_dim);
      for (float& value : values) value = static_cast<float>(random() % 65537) / 32768.0F - 1.0F;
      return Array{DeviceArray<float>(values), length, c.num_heads, c.head_dim};
    };
    const auto zeros = [&](int64_t length) {
      const std::vector<float> values(c.batch * length * c.num_heads * c.head_dim);
      return Array{DeviceArray<float>(values), length, c.num_heads, c.head_dim};
    };
    const Array x = normals(c.seq_len);
    const Array y = normals(rows);
    DeviceArray<float> carried(std::max<int64_t>(c.batch * (c.config.num_levels - 1) * c.num_heads * c.head_dim, 1));
    const auto nothing = [&] {
      return Results{zeros(rows), zeros(rows), zeros(c.seq_len), zeros(c.seq_len), zeros(c.seq_len), zeros(rows)};
    };
    Results expected = nothing();
    run(c, whole, *select(c, whole, scores, 0), x, y, 0, 0, expected, carried);

    Results parts = nothing();
    const auto num_tiles = static_cast<int64_t>(whole.host.tiles.size());
    int64_t token = 0;
    int64_t row = 0;
    for (int64_t begin = 0; begin < num_tiles;) {
      const int64_t end = std::min(num_tiles, begin + 1 + static_cast<int64_t>(random() % 4));
      const Plans part(part_of(whole.host, begin, end));
      cut_inside += part.host.documents.back().tokens_after > 0 ? 1 : 0;
      const std::unique_ptr<Maps> maps = select(c, part, scores, token);
      run(c, part, *maps, x, y, token, row, parts, carried);
      ASSERT_EQ(cudaDeviceSynchronize(), cudaSuccess);
      token += part.host.seq_len;
      row += part.host.gathered_len;
      begin = end;
    }
    ASSERT_EQ(parts.host(), expected.host());
  }
  EXPECT_GT(cut_inside, 50);
}

}  // namespace
}  // namespace lighthouse

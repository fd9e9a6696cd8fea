// The CUDA stages against the CPU stages: index maps bit for bit, sums exactly on small integers, norms within
// rounding.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <random>
#include <vector>

#include "cpp/cuda/stage_cases_cuda.h"
#include "lighthouse/cuda_stages.h"
#include "lighthouse/forest.h"
#include "lighthouse/select.h"

namespace lighthouse {
namespace {

using cuda_test::Case;
using cuda_test::DeviceArray;
using cuda_test::have_device;
using cuda_test::Plans;
using cuda_test::random_case;
using cuda_test::random_scores;

struct IndexMaps {
  std::vector<int32_t> selection, slots;
};

IndexMaps select_on_host(const Case& c, const SequencePlan& plan, const std::vector<float>& s_qk,
                         const std::vector<float>& s_kq) {
  const int64_t heads = c.batch * c.num_kv_heads;
  IndexMaps maps{std::vector<int32_t>(heads * plan.gathered_len), std::vector<int32_t>(heads * plan.num_slots)};
  select_entries({s_qk.data(), s_kq.data(), &plan, c.batch, c.num_kv_heads, maps.selection.data(), maps.slots.data()},
                 serial_for);
  return maps;
}

/// The coarsest entries whose first child has a row, in order, and all windows of F tokens of documents that are
/// attended to in full.
std::vector<int32_t> expanded_coarse(const Plans& plans, int64_t heads, const std::vector<int32_t>& slots) {
  std::vector<int32_t> expanded;
  const int coarsest = plans.device.num_levels - 1;
  for (int64_t head = 0; head < heads && coarsest > 0; ++head) {
    for (const DeviceDocument& document : plans.table) {
      const Pyramid pyramid{document.seq_len, plans.device.num_levels, plans.device.log2_pool};
      if (document.num_levels < plans.device.num_levels) {
        for (int64_t i = 0; i < pyramid.num_coarse(); ++i) {
          expanded.push_back(static_cast<int32_t>(document.coarse_begin + i));
        }
        continue;
      }
      for (int64_t entry = 0; entry < pyramid.num_coarse(); ++entry) {
        const int64_t child = pyramid.slot_offset(coarsest - 1) + (entry << pyramid.log2_pool);
        if (slots[head * plans.host.num_slots + document.slot_begin + child] != kNoRow) {
          expanded.push_back(static_cast<int32_t>(document.coarse_begin + entry));
        }
      }
    }
  }
  return expanded;
}

TEST(StagesCuda, SelectionEqualsCpuAtRandomConfigurations) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(7);
  for (int i = 0; i < 300; ++i) {
    const Case c = random_case(random, i % 10 == 0 ? 20000 : 700);
    SCOPED_TRACE(testing::PrintToString(c));
    const Plans plans(c);
    const int64_t heads = c.batch * c.num_kv_heads;
    const std::vector<float> s_qk = random_scores(random, heads * c.seq_len);
    const std::vector<float> s_kq = random_scores(random, heads * c.seq_len);
    const IndexMaps expected = select_on_host(c, plans.host, s_qk, s_kq);

    const DeviceArray<float> device_qk(s_qk), device_kq(s_kq);
    const DeviceArray<float> max_qk(heads * plans.device.num_maxima), max_kq(heads * plans.device.num_maxima);
    const DeviceArray<int32_t> selection(heads * plans.host.gathered_len), slots(heads * plans.host.num_slots);
    const DeviceArray<int32_t> expanded(heads * plans.device.num_expanded);
    const DeviceArray<int32_t> workspace(select_workspace_elements(plans.host, c.batch, c.num_kv_heads));
    pool_scores({device_qk.get(), device_kq.get(), c.batch, c.num_kv_heads, max_qk.get(), max_kq.get()}, plans.device,
                nullptr);
    select_entries({max_qk.get(), max_kq.get(), c.batch, c.num_kv_heads, c.num_kv_heads, selection.get(), slots.get(),
                    expanded.get(), workspace.get()},
                   plans.host, plans.device, nullptr);
    ASSERT_EQ(selection.host(), expected.selection);
    ASSERT_EQ(slots.host(), expected.slots);
    ASSERT_EQ(expanded.host(), expanded_coarse(plans, heads, expected.slots));

    const DeviceArray<int32_t> inverted(heads * plans.host.num_slots);
    const DeviceArray<int32_t> num_errors(std::vector<int32_t>{0});
    invert_selection(InvertParams{selection.get(), c.batch, c.num_kv_heads, inverted.get(), num_errors.get()},
                     plans.device, nullptr);
    ASSERT_EQ(inverted.host(), expected.slots);
    ASSERT_EQ(num_errors.host()[0], 0);

    std::vector<int32_t> wrong = expected.selection;
    std::swap(wrong[random() % wrong.size()], wrong[random() % wrong.size()]);
    bool is_wrong = false;
    for (int64_t head = 0; head < heads; ++head) {
      is_wrong = is_wrong || first_wrong_row(plans.host, wrong.data() + head * plans.host.gathered_len) != kNoRow;
    }
    const DeviceArray<int32_t> wrong_selection(wrong);
    invert_selection(InvertParams{wrong_selection.get(), c.batch, c.num_kv_heads, inverted.get(), num_errors.get()},
                     plans.device, nullptr);
    ASSERT_EQ(num_errors.host()[0] > 0, is_wrong);
  }
}

template <typename AnyView>
AnyView view_of(auto* data, int64_t heads, int64_t length, int64_t head_dim) {
  return AnyView{data, length * heads * head_dim, heads * head_dim, head_dim};  // [B, N, H, D]
}

/// Integers in [-4, 4], whose sums and power-of-two means fp32 holds exactly.
std::vector<float> small_integers(std::mt19937_64& random, size_t size) {
  std::vector<float> values(size);
  for (float& value : values) value = static_cast<float>(random() % 9) - 4.0f;
  return values;
}

/// pool_and_score leaves the means that gather makes of the same windows, and the maxima of the norms of tokens.
/// Squares of small integers add without rounding.
void expect_one_pass_equals(const GatherParams& gather, const Case& c, const Plans& plans,
                            const DeviceArray<int32_t>& slots, const std::vector<std::vector<float>>& rows) {
  const int64_t heads[] = {c.num_heads, c.num_kv_heads, c.num_kv_heads};
  const int64_t dim = c.head_dim;
  const int64_t length = plans.host.gathered_len;
  std::vector<std::unique_ptr<DeviceArray<float>>> coarse, pooled;
  for (int i = 0; i < 3; ++i) {
    coarse.push_back(std::make_unique<DeviceArray<float>>(c.batch * plans.device.num_coarse * heads[i] * dim));
    pooled.push_back(std::make_unique<DeviceArray<float>>(rows[i].size()));
  }
  const int64_t num_maxima = plans.device.num_maxima;
  const DeviceArray<float> max_qk(c.batch * heads[0] * num_maxima), max_kq(c.batch * heads[1] * num_maxima);
  const DeviceArray<float> workspace(
      pool_workspace_elements(plans.device, c.batch, heads[0], heads[1], dim, DType::kFloat32));
  pool_and_score({gather.q, gather.k, gather.v, DType::kFloat32, c.batch, heads[0], heads[1], dim, max_qk.get(),
                  max_kq.get(), coarse[0]->get(), coarse[1]->get(), coarse[2]->get(), workspace.get()},
                 plans.device, nullptr);
  const auto row_view = [&](int i) { return View{pooled[i]->get(), length * heads[i] * dim, dim, length * dim}; };
  GatherParams from_means = gather;
  from_means.q_rows = row_view(0);
  from_means.k_rows = row_view(1);
  from_means.v_rows = row_view(2);
  const DeviceArray<int32_t> expanded(expanded_coarse(plans, c.batch * c.num_kv_heads, slots.host()));
  gather_rows(from_means, slots.get(), {coarse[0]->get(), coarse[1]->get(), coarse[2]->get(), expanded.get()},
              plans.device, nullptr);
  for (int i = 0; i < 3; ++i) ASSERT_EQ(pooled[i]->host(), rows[i]);

  const auto expect_maxima = [&](const ConstView& x, int64_t num_heads, const DeviceArray<float>& maxima) {
    const DeviceArray<float> norms(c.batch * num_heads * c.seq_len), expected(c.batch * num_heads * num_maxima),
        unused(c.batch * num_heads * num_maxima);
    token_norms({x, DType::kFloat32, c.batch, c.seq_len, num_heads, num_heads, dim, norms.get(), num_heads * c.seq_len,
                 c.seq_len, 1},
                nullptr);
    pool_scores({norms.get(), norms.get(), c.batch, num_heads, expected.get(), unused.get()}, plans.device, nullptr);
    ASSERT_EQ(maxima.host(), expected.host());
  };
  expect_maxima(gather.q, heads[0], max_qk);
  expect_maxima(gather.k, heads[1], max_kq);
}

TEST(StagesCuda, NormsEqualCpu) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(5);
  for (int i = 0; i < 40; ++i) {
    const Case c = random_case(random, 300);
    SCOPED_TRACE(testing::PrintToString(c));
    const std::vector<float> x = small_integers(random, c.batch * c.seq_len * c.num_heads * c.head_dim);
    std::vector<float> expected(c.batch * c.num_kv_heads * c.seq_len);
    const DeviceArray<float> device_x(x), score(expected.size());
    const auto params = [&](const float* data, float* out) {
      return TokenNormParams{view_of<ConstView>(data, c.num_heads, c.seq_len, c.head_dim),
                             DType::kFloat32,
                             c.batch,
                             c.seq_len,
                             c.num_heads,
                             c.num_kv_heads,
                             c.head_dim,
                             out,
                             c.num_kv_heads * c.seq_len,
                             c.seq_len,
                             1};
    };
    token_norms(params(x.data(), expected.data()), serial_for);
    token_norms(params(device_x.get(), score.get()), nullptr);
    const std::vector<float> actual = score.host();
    for (size_t j = 0; j < expected.size(); ++j) ASSERT_FLOAT_EQ(actual[j], expected[j]);
  }
}

TEST(StagesCuda, MapsAndAdjointsEqualCpuExactly) {
  if (!have_device()) GTEST_SKIP() << "no CUDA device";
  std::mt19937_64 random(11);
  for (int i = 0; i < 120; ++i) {
    const Case c = random_case(random, i % 10 == 0 ? 5000 : 400);
    SCOPED_TRACE(testing::PrintToString(c));
    const Plans plans(c);
    const int64_t length = c.seq_len, rows = plans.host.gathered_len, dim = c.head_dim;
    const int64_t kv = c.batch * c.num_kv_heads;
    const IndexMaps maps =
        select_on_host(c, plans.host, random_scores(random, kv * length), random_scores(random, kv * length));
    const DeviceArray<int32_t> selection(maps.selection), slots(maps.slots);
    const size_t q_size = c.batch * length * c.num_heads * dim, kv_size = kv * length * dim;
    const size_t qr_size = c.batch * rows * c.num_heads * dim, kvr_size = kv * rows * dim;
    const std::vector<float> q = small_integers(random, q_size), k = small_integers(random, kv_size),
                             v = small_integers(random, kv_size);
    std::vector<float> q_rows(qr_size), k_rows(kvr_size), v_rows(kvr_size);
    const auto tokens = [&](auto* x, int64_t heads) { return view_of<ConstView>(x, heads, length, dim); };
    const auto out_tokens = [&](auto* x, int64_t heads) { return view_of<View>(x, heads, length, dim); };
    const auto row_view = [&](auto* x, int64_t heads) { return View{x, rows * heads * dim, dim, rows * dim}; };
    const auto row_source = [&](auto* x, int64_t heads) { return ConstView{x, rows * heads * dim, dim, rows * dim}; };
    const int64_t h = c.num_heads, g = c.num_kv_heads;
    gather_rows(GatherParams{tokens(q.data(), h), tokens(k.data(), g), tokens(v.data(), g), row_view(q_rows.data(), h),
                             row_view(k_rows.data(), g), row_view(v_rows.data(), g), maps.selection.data(), &plans.host,
                             DType::kFloat32, c.batch, h, g, dim},
                serial_for);

    const DeviceArray<float> dq(q), dk(k), dv(v), dq_rows(qr_size), dk_rows(kvr_size), dv_rows(kvr_size);
    const GatherParams gather{tokens(dq.get(), h),
                              tokens(dk.get(), g),
                              tokens(dv.get(), g),
                              row_view(dq_rows.get(), h),
                              row_view(dk_rows.get(), g),
                              row_view(dv_rows.get(), g),
                              selection.get(),
                              &plans.host,
                              DType::kFloat32,
                              c.batch,
                              h,
                              g,
                              dim};
    gather_rows(gather, slots.get(), {}, plans.device, nullptr);
    ASSERT_EQ(dq_rows.host(), q_rows);
    ASSERT_EQ(dk_rows.host(), k_rows);
    ASSERT_EQ(dv_rows.host(), v_rows);

    if (!plans.host.is_full() && can_pool_and_score(gather.q, gather.k, gather.v, DType::kFloat32, dim)) {
      expect_one_pass_equals(gather, c, plans, slots, {q_rows, k_rows, v_rows});
    }

    // Adjoint of gather.
    std::vector<float> grad_q(q_size), grad_k(kv_size), grad_v(kv_size);
    const std::vector<float> gq = small_integers(random, qr_size), gk = small_integers(random, kvr_size),
                             gv = small_integers(random, kvr_size);
    gather_rows_backward(
        GatherBackwardParams{row_source(gq.data(), h), row_source(gk.data(), g), row_source(gv.data(), g),
                             out_tokens(grad_q.data(), h), out_tokens(grad_k.data(), g), out_tokens(grad_v.data(), g),
                             maps.slots.data(), &plans.host, DType::kFloat32, c.batch, h, g, dim},
        serial_for);
    const DeviceArray<float> dgq(gq), dgk(gk), dgv(gv), out_q(q_size), out_k(kv_size), out_v(kv_size);
    gather_rows_backward(
        GatherBackwardParams{row_source(dgq.get(), h), row_source(dgk.get(), g), row_source(dgv.get(), g),
                             out_tokens(out_q.get(), h), out_tokens(out_k.get(), g), out_tokens(out_v.get(), g),
                             slots.get(), &plans.host, DType::kFloat32, c.batch, h, g, dim},
        plans.device, nullptr);
    ASSERT_EQ(out_q.host(), grad_q);
    ASSERT_EQ(out_k.host(), grad_k);
    ASSERT_EQ(out_v.host(), grad_v);

    // Scatter and its adjoint.
    std::vector<float> out(q_size), drows(qr_size);
    scatter_rows(ScatterParams{row_source(gq.data(), h), out_tokens(out.data(), h), maps.slots.data(), &plans.host,
                               DType::kFloat32, c.batch, h, g, dim},
                 serial_for);
    const DeviceArray<float> device_out(q_size), device_drows(qr_size);
    scatter_rows(ScatterParams{row_source(dgq.get(), h), out_tokens(device_out.get(), h), slots.get(), &plans.host,
                               DType::kFloat32, c.batch, h, g, dim},
                 plans.device, nullptr);
    ASSERT_EQ(device_out.host(), out);
    scatter_rows_backward(ScatterBackwardParams{tokens(q.data(), h), row_view(drows.data(), h), maps.selection.data(),
                                                &plans.host, DType::kFloat32, c.batch, h, g, dim},
                          serial_for);
    scatter_rows_backward(ScatterBackwardParams{tokens(dq.get(), h), row_view(device_drows.get(), h), selection.get(),
                                                &plans.host, DType::kFloat32, c.batch, h, g, dim},
                          slots.get(), plans.device, nullptr);
    ASSERT_EQ(device_drows.host(), drows);
  }
}

}  // namespace
}  // namespace lighthouse

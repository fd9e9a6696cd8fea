// Strided inputs: the same bits as contiguous ones, and not a byte more memory.
#include <ATen/TensorOperators.h>
#include <ATen/core/grad_mode.h>
#include <ATen/ops/stack.h>
#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>
#include <gtest/gtest.h>

#include "ops_cases.h"

namespace lighthouse::ops_test {
namespace {

/// Counts what the allocators hand out while it lives.
class AllocationCounter : public c10::MemoryReportingInfoBase {
 public:
  void reportMemoryUsage(void* /*ptr*/, int64_t size, size_t, size_t, c10::Device) override {
    if (size > 0) bytes_ += size;
  }
  bool memoryProfilingEnabled() const override { return true; }
  int64_t bytes() const { return bytes_; }

 private:
  int64_t bytes_ = 0;
};

int64_t bytes_allocated_by(const std::function<void()>& function) {
  const auto counter = std::make_shared<AllocationCounter>();
  const c10::DebugInfoGuard guard(c10::DebugInfoKind::PROFILER_STATE, counter);
  function();
  return counter->bytes();
}

/// q, k and v as they come out of one projection: [B, N, 3, H, D].
Inputs interleaved(const Inputs& inputs) {
  const at::Tensor qkv = at::stack({inputs.q, inputs.k, inputs.v}, 2);
  return {qkv.select(2, 0), qkv.select(2, 1), qkv.select(2, 2), inputs.dout, inputs.gate};
}

/// The same values in [B, H, N, D] memory order.
Inputs heads_first(const Inputs& inputs) {
  const auto reorder = [](const at::Tensor& x) { return x.transpose(1, 2).contiguous().transpose(1, 2); };
  return {reorder(inputs.q), reorder(inputs.k), reorder(inputs.v), reorder(inputs.dout), inputs.gate};
}

/// A gap after every head: strides are no multiples of the head dimension.
Inputs padded(const Inputs& inputs) {
  const auto pad = [](const at::Tensor& x) {
    std::vector<int64_t> shape = x.sizes().vec();
    shape.back() += 3;
    const at::Tensor storage = normal(shape, 9, x.scalar_type());
    at::Tensor view = storage.slice(3, 1, 1 + x.size(3));
    view.copy_(x);
    return view;
  };
  return {pad(inputs.q), pad(inputs.k), pad(inputs.v), pad(inputs.dout), inputs.gate};
}

class StridesTest : public testing::TestWithParam<Scorer> {
 protected:
  // Two rows for the norm scorer; the others' residue classes are views of any strides.
  OpsCase case_{"strided", 2, 131, 4, 4, 8, make_config(5, 3, 2), {GetParam(), 4}, {}};
  Inputs inputs_ = make_inputs(case_, at::kFloat);

  void expect_same(const Inputs& strided, const char* name) const {
    ASSERT_FALSE(strided.q.is_contiguous());
    const Results expected = results_of(inputs_, options_of(case_, inputs_));
    const Results actual = results_of(strided, options_of(case_, strided));
    for (int i = 0; i < 4; ++i) EXPECT_TRUE(same_bits(actual[i], expected[i])) << name << ' ' << kResultNames[i];

    const auto forward_bytes = [&](const Inputs& inputs) {
      const at::NoGradGuard no_grad;
      return bytes_allocated_by([&] { lighthouse_attention(inputs.q, inputs.k, inputs.v, options_of(case_, inputs)); });
    };
    const int64_t expected_bytes = forward_bytes(inputs_);
    EXPECT_GT(expected_bytes, inputs_.q.nbytes());
    // On CUDA heads that do not start at multiples of 16 bytes take the general path, which keeps scores of all tokens.
    if (test_device().is_cpu()) {
      EXPECT_EQ(forward_bytes(strided), expected_bytes) << name;
    }
  }
};
INSTANTIATE_TEST_SUITE_P(Scorers, StridesTest, testing::Values(Scorer::kNorm, Scorer::kDilated, Scorer::kGla));

TEST_P(StridesTest, InterleavedHeadsFirstAndPadded) {
  expect_same(interleaved(inputs_), "interleaved");
  expect_same(heads_first(inputs_), "heads first");
  expect_same(padded(inputs_), "padded");
}

TEST(BackwardMemory, KeepsNoTokensForTheBackward) {
  const OpsCase c{"kept", 1, 4096, 2, 2, 16, make_config(8), scored_by(Scorer::kNorm), {}};
  Inputs inputs = make_inputs(c, at::kFloat);
  const auto options = options_of(c, inputs);
  inputs.q = inputs.q.detach().requires_grad_();
  const int64_t uses = inputs.q.storage().use_count();
  const at::Tensor out = lighthouse_attention(inputs.q, inputs.k, inputs.v, options);
  ASSERT_TRUE(out.requires_grad());
  EXPECT_EQ(inputs.q.storage().use_count(), uses);  // the graph holds no reference to q's memory
  EXPECT_EQ(inputs.k.storage().use_count(), 1);
  EXPECT_EQ(inputs.v.storage().use_count(), 1);
}

}  // namespace
}  // namespace lighthouse::ops_test

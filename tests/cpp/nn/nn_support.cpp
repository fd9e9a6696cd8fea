#include "nn_support.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/where.h>
#include <gtest/gtest.h>

#include <cmath>

namespace lighthouse::nn_test {
namespace {

/// Counter-based: a fixed function of index and seed, uniform in (0, 1).
at::Tensor uniform(at::IntArrayRef shape, int64_t seed) {
  const int64_t count = c10::multiply_integers(shape);
  at::Tensor bits = at::arange(count, at::TensorOptions().dtype(at::kLong)) * 2654435761 + seed * 40503;
  for (int round = 0; round < 3; ++round) {  // xorshift-multiply of 31 bits
    bits = bits.bitwise_and_(0x7fffffff);
    bits = bits.bitwise_xor(bits.bitwise_right_shift(15)) * 0x2c1b3c6d;
  }
  bits = bits.bitwise_and_(0x7fffffff);
  bits = bits.bitwise_xor(bits.bitwise_right_shift(13));
  return bits.to(at::kDouble).add_(0.5).mul_(std::ldexp(1.0, -31)).view(shape);
}

}  // namespace

at::Tensor normal(at::IntArrayRef shape, int64_t seed, at::ScalarType dtype) {
  const at::Tensor radius = (-2 * uniform(shape, 2 * seed).log()).sqrt();
  return (radius * (2 * M_PI * uniform(shape, 2 * seed + 1)).cos()).to(dtype).to(test_device());
}

at::Tensor integers(at::IntArrayRef shape, int64_t limit, int64_t seed) {
  return (uniform(shape, seed) * static_cast<double>(limit)).floor().to(at::kLong).to(test_device());
}

at::Tensor exact(const at::Tensor& x) {
  return x.detach().to(at::kCPU).to(at::kDouble, /*non_blocking=*/false, /*copy=*/true);
}

double unit(at::ScalarType dtype) {
  return std::ldexp(1.0, dtype == at::kDouble ? -53 : dtype == at::kFloat ? -24 : -8);
}

double sum_unit(at::ScalarType dtype) { return unit(dtype == at::kDouble ? at::kDouble : at::kFloat); }

void expect_close(const at::Tensor& x, const at::Tensor& value, const at::Tensor& magnitude, const std::string& what) {
  ASSERT_EQ(x.sizes(), value.sizes()) << what;
  if (x.numel() == 0) return;
  const at::ScalarType dtype = x.scalar_type();
  const double margin = 1.01;
  const double smallest = std::ldexp(1.0, -126);  // results below may be flushed to zero
  const at::Tensor bound =
      ((value.abs() * unit(dtype) + magnitude * sum_unit(dtype)) * margin + smallest).expand_as(value).flatten();
  const at::Tensor got = exact(x).flatten();
  const at::Tensor wanted = value.flatten();
  const at::Tensor fine =
      ((got - wanted).abs() <= bound).logical_or(got == wanted).logical_or(got.isnan() & wanted.isnan());
  const at::Tensor excess = at::where(fine, -1.0, ((got - wanted).abs() / bound).nan_to_num(INFINITY));
  const auto worst = excess.argmax().item<int64_t>();
  EXPECT_TRUE(fine.all().item<bool>()) << what << ": element " << worst << " of " << x.sizes() << " is "
                                       << got[worst].item<double>() << ", not " << wanted[worst].item<double>()
                                       << " within " << bound[worst].item<double>();
}

void expect_same_bits(const at::Tensor& x, const at::Tensor& y, const std::string& what) {
  ASSERT_EQ(x.sizes(), y.sizes()) << what;
  ASSERT_EQ(x.scalar_type(), y.scalar_type()) << what;
  if (x.numel() == 0) return;
  const auto bits = [](const at::Tensor& values) { return values.contiguous().view(at::kByte); };
  const at::Tensor a = x.dim() == 0 ? x.view(1) : x;
  const at::Tensor b = y.dim() == 0 ? y.view(1) : y;
  EXPECT_TRUE(bits(a).equal(bits(b))) << what;
}

std::string dtype_name(at::ScalarType dtype) { return c10::toString(dtype); }

}  // namespace lighthouse::nn_test

// Cases and bounds that the tests of this layer share. A function is tested twice: in fp64 against autograd, and in
// fp32 and bf16, on the test device, against itself in fp64 on the CPU.
//
// Bounds: u is half a unit in the last place of 1. A sum of n terms, in any order, errs at most n * u * (sum of their
// absolute values), a product or quotient of factors with k roundings behind them (k + 1) * u of its value; to first
// order, which a 1 % margin covers. `A` is the type that sums run in. The result is rounded to T once.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>

#include "support/test_device.h"

namespace lighthouse::nn_test {

/// About normal values, the same on every machine, on the test device.
at::Tensor normal(at::IntArrayRef shape, int64_t seed, at::ScalarType dtype);
/// Whole numbers in [0, limit), likewise.
at::Tensor integers(at::IntArrayRef shape, int64_t limit, int64_t seed);

/// fp64 of the same values, on the CPU: a copy even of such.
at::Tensor exact(const at::Tensor& x);

/// u of a dtype, and of the dtype that its sums run in.
double unit(at::ScalarType dtype);
double sum_unit(at::ScalarType dtype);

/// |x - value| <= u(T) * |value| + sum_unit(T) * magnitude, all elements; `value` and `magnitude` fp64 on the CPU.
/// NaN where `value` is NaN. The failure names the worst element.
void expect_close(const at::Tensor& x, const at::Tensor& value, const at::Tensor& magnitude, const std::string& what);

/// Equal shapes, dtypes and bits, NaN included.
void expect_same_bits(const at::Tensor& x, const at::Tensor& y, const std::string& what);

std::string dtype_name(at::ScalarType dtype);

}  // namespace lighthouse::nn_test

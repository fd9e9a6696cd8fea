#include "cuda/fast_divide.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <random>

namespace lighthouse {
namespace {

constexpr uint32_t kEnd = uint32_t{1} << 31;  // of what is divided

void expect_quotients_around(uint32_t n, uint32_t divisor) {
  const FastDivide divide(divisor);
  for (uint32_t value = n < 2 ? 0 : n - 2; value < n + 3 && value < kEnd; ++value) {
    ASSERT_EQ(divide.quotient(value), value / divisor) << value << " / " << divisor;
  }
}

TEST(FastDivide, EqualsDivisionAroundMultiples) {
  std::mt19937_64 random(3);
  for (uint32_t divisor = 1; divisor <= 400; ++divisor) {
    expect_quotients_around(0, divisor);
    expect_quotients_around(kEnd - 1, divisor);
    expect_quotients_around((kEnd - 1) / divisor * divisor, divisor);
    for (int i = 0; i < 50; ++i) {
      expect_quotients_around(static_cast<uint32_t>(random() % kEnd) / divisor * divisor, divisor);
    }
  }
}

TEST(FastDivide, EqualsDivisionByLargeNumbers) {
  std::mt19937_64 random(4);
  for (int i = 0; i < 20000; ++i) {
    const auto divisor = static_cast<uint32_t>(random() % (kEnd - 1)) + 1;
    expect_quotients_around(static_cast<uint32_t>(random() % kEnd), divisor);
    expect_quotients_around(divisor, divisor);
    expect_quotients_around(kEnd - 1, divisor);
  }
}

}  // namespace
}  // namespace lighthouse

// Division by a number that the host knows: a multiplication and a shift.
#pragma once

#include <bit>
#include <cstdint>

#include "lighthouse/geometry.h"

namespace lighthouse {

/// Quotients of 0 <= n < 2^31 by 1 <= divisor < 2^31. With 2^(s-1) < d <= 2^s, the multiplier ceil(2^(31+s) / d) is at
/// most 2^32 - 1 for d > 1 and errs by less than 2^s / d, which n < 2^31 keeps below one unit of the quotient.
class FastDivide {
 public:
  FastDivide() = default;
  explicit FastDivide(uint32_t divisor) : divisor_(divisor) {
    if (divisor == 1) return;
    const int log2 = std::bit_width(divisor - 1);  // s
    multiplier_ = static_cast<uint32_t>(((uint64_t{1} << (31 + log2)) + divisor - 1) / divisor);
    shift_ = log2 - 1;
  }
  LIGHTHOUSE_HOST_DEVICE uint32_t quotient(uint32_t n) const {
    if (divisor_ == 1) return n;
    return static_cast<uint32_t>(uint64_t{n} * multiplier_ >> 32) >> shift_;
  }
  LIGHTHOUSE_HOST_DEVICE uint32_t divisor() const { return divisor_; }

 private:
  uint32_t divisor_ = 1;
  uint32_t multiplier_ = 0;
  int32_t shift_ = 0;
};

}  // namespace lighthouse

// Plain scalar conversions between double and the element types, one value at a time, for tests.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>

#include "lighthouse/dtype.h"

namespace lighthouse::test_support {

/// A binary floating-point format narrower than double.
struct Format {
  int mantissa_bits;  ///< stored ones
  int min_exponent;   ///< of the smallest normal number
  int max_exponent;
};
inline constexpr Format kFloatFormat{23, -126, 127};
inline constexpr Format kBFloat16Format{7, -126, 127};
inline constexpr Format kFloat16Format{10, -14, 15};

/// The nearest number of the format, ties to even (the default rounding of the processor, which tests do not change).
inline double round_to(const Format& format, double value) {
  if (value == 0 || !std::isfinite(value)) return value;
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  const double unit = std::ldexp(1.0, exponent - format.mantissa_bits);  // spacing of numbers around value
  const double rounded = std::nearbyint(value / unit) * unit;
  const double limit = std::ldexp(2.0, format.max_exponent);
  return std::abs(rounded) >= limit ? std::copysign(std::numeric_limits<double>::infinity(), value) : rounded;
}
inline double round_to(DType dtype, double value) {
  switch (dtype) {
    case DType::kFloat32:
      return round_to(kFloatFormat, value);
    case DType::kFloat64:
      return value;
    case DType::kBFloat16:
      return round_to(kBFloat16Format, value);
    case DType::kFloat16:
      return round_to(kFloat16Format, value);
  }
  return value;
}

inline double decode_half(const Format& format, uint16_t bits) {
  const int magnitude = bits & 0x7fff;
  const int exponent = magnitude >> format.mantissa_bits;
  const int mantissa = magnitude & ((1 << format.mantissa_bits) - 1);
  double value = 0;
  if (exponent == format.max_exponent - format.min_exponent + 2) {
    value = mantissa != 0 ? std::nan("") : std::numeric_limits<double>::infinity();
  } else if (exponent == 0) {
    value = std::ldexp(mantissa, format.min_exponent - format.mantissa_bits);
  } else {
    value =
        std::ldexp(mantissa + (1 << format.mantissa_bits), exponent - 1 + format.min_exponent - format.mantissa_bits);
  }
  return (bits & 0x8000) != 0 ? -value : value;
}

/// Bits of a value that the format holds exactly.
inline uint16_t encode_half(const Format& format, double value) {
  const uint16_t sign = std::signbit(value) ? 0x8000 : 0;
  const int top = (format.max_exponent - format.min_exponent + 2) << format.mantissa_bits;  // infinity
  if (std::isnan(value)) return static_cast<uint16_t>(sign | top | (1 << (format.mantissa_bits - 1)));
  if (std::isinf(value)) return static_cast<uint16_t>(sign | top);
  if (value == 0) return sign;
  const int exponent = std::max(std::ilogb(value), format.min_exponent);
  const auto units = static_cast<int>(std::ldexp(std::abs(value), format.mantissa_bits - exponent));
  // units holds the leading one of a normal number, which adds 1 to the exponent field.
  return static_cast<uint16_t>(sign | (((exponent - format.min_exponent) << format.mantissa_bits) + units));
}

}  // namespace lighthouse::test_support

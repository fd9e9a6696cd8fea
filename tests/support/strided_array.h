// [batch, sequence, head, channel] arrays of any dtype and memory order for tests of the stages. They start as NaN,
// with guards at both ends, so that elements that were not written, or should not have been, show.
#pragma once

#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

#include "lighthouse/dtype.h"
#include "lighthouse/strided_view.h"
#include "reference/lighthouse.h"
#include "support/rounding.h"

namespace lighthouse::test_support {

/// Memory orders of a [B, N, H, D] argument.
enum class Order : std::uint8_t {
  kTokensFirst,  ///< [B, N, H, D]
  kHeadsFirst,   ///< [B, H, N, D]
  kInterleaved,  ///< the middle one of three: [B, N, 3, H, D]
  kOdd,          ///< gaps after every head, token and batch; nothing is aligned
};
inline constexpr Order kOrders[] = {Order::kTokensFirst, Order::kHeadsFirst, Order::kInterleaved, Order::kOdd};

class StridedArray {
 public:
  StridedArray(DType dtype, Order order, int64_t batch, int64_t length, int64_t heads, int64_t channels)
      : dtype_(dtype), batch_(batch), length_(length), heads_(heads), channels_(channels) {
    switch (order) {
      case Order::kTokensFirst:
        strides_ = {length * heads * channels, heads * channels, channels};
        break;
      case Order::kHeadsFirst:
        strides_ = {length * heads * channels, channels, length * channels};
        break;
      case Order::kInterleaved:
        strides_ = {3 * length * heads * channels, 3 * heads * channels, channels};
        begin_ += heads * channels;
        break;
      case Order::kOdd:
        strides_ = {length * (heads * (channels + 3) + 1) + 5, heads * (channels + 3) + 1, channels + 3};
        begin_ += 1;
        break;
    }
    const int64_t size = begin_ + batch * strides_.batch + kGuard;
    bytes_.assign(static_cast<size_t>(size * element_size()), kCanary);
  }
  /// Rounds the values of a tensor.
  StridedArray(DType dtype, Order order, const reference::Tensor& values)
      : StridedArray(dtype, order, values.batch, values.length, values.heads, values.channels) {
    for_each([&](int64_t b, int64_t position, int64_t head, int64_t channel, int64_t index) {
      set(index, values.at(b, position, head)[channel]);
    });
  }

  View view() { return {bytes_.data() + begin_ * element_size(), strides_.batch, strides_.sequence, strides_.head}; }
  ConstView const_view() const {
    return {bytes_.data() + begin_ * element_size(), strides_.batch, strides_.sequence, strides_.head};
  }

  reference::Tensor tensor() const {
    reference::Tensor values(batch_, length_, heads_, channels_);
    for_each([&](int64_t b, int64_t position, int64_t head, int64_t channel, int64_t index) {
      values.at(b, position, head)[channel] = get(index);
    });
    return values;
  }

  /// Empty if every element equals `expected` rounded to the dtype, and nothing else was written; else what differs.
  std::string difference(const reference::Tensor& expected) const {
    std::vector<bool> element(bytes_.size() / static_cast<size_t>(element_size()));
    std::string message;
    for_each([&](int64_t b, int64_t position, int64_t head, int64_t channel, int64_t index) {
      element[static_cast<size_t>(index)] = true;
      const double wanted = round_to(dtype_, expected.at(b, position, head)[channel]);
      if (!message.empty() || get(index) == wanted) return;
      message = "(batch " + std::to_string(b) + ", position " + std::to_string(position) + ", head " +
                std::to_string(head) + ", channel " + std::to_string(channel) + ") is " + std::to_string(get(index)) +
                ", not " + std::to_string(wanted);
    });
    for (size_t i = 0; i < bytes_.size() && message.empty(); ++i) {
      if (!element[i / static_cast<size_t>(element_size())] && bytes_[i] != kCanary) {
        message = "byte " + std::to_string(i) + " outside of the tensor was written";
      }
    }
    return message;
  }

  const std::vector<unsigned char>& bytes() const { return bytes_; }

 private:
  static constexpr unsigned char kCanary = 0xFF;  // a NaN in every dtype
  static constexpr int64_t kGuard = 64;
  struct Strides {
    int64_t batch, sequence, head;
  };

  template <typename Visit>
  void for_each(const Visit& visit) const {
    for (int64_t b = 0; b < batch_; ++b) {
      for (int64_t position = 0; position < length_; ++position) {
        for (int64_t head = 0; head < heads_; ++head) {
          const int64_t first = begin_ + b * strides_.batch + position * strides_.sequence + head * strides_.head;
          for (int64_t channel = 0; channel < channels_; ++channel) visit(b, position, head, channel, first + channel);
        }
      }
    }
  }
  int64_t element_size() const {
    if (dtype_ == DType::kFloat64) return sizeof(double);
    return dtype_ == DType::kFloat32 ? sizeof(float) : sizeof(uint16_t);
  }
  const Format& half_format() const { return dtype_ == DType::kBFloat16 ? kBFloat16Format : kFloat16Format; }

  template <typename T>
  T load(int64_t index) const {
    T value;
    std::memcpy(&value, bytes_.data() + index * element_size(), sizeof(T));
    return value;
  }
  template <typename T>
  void store(int64_t index, T value) {
    std::memcpy(bytes_.data() + index * element_size(), &value, sizeof(T));
  }
  double get(int64_t index) const {
    if (dtype_ == DType::kFloat64) return load<double>(index);
    if (dtype_ == DType::kFloat32) return load<float>(index);
    return decode_half(half_format(), load<uint16_t>(index));
  }
  void set(int64_t index, double value) {
    if (dtype_ == DType::kFloat64) return store(index, value);
    if (dtype_ == DType::kFloat32) return store(index, static_cast<float>(value));
    store(index, encode_half(half_format(), round_to(dtype_, value)));
  }

  DType dtype_;
  int64_t batch_, length_, heads_, channels_;
  Strides strides_{};
  int64_t begin_ = kGuard;
  std::vector<unsigned char> bytes_;
};

}  // namespace lighthouse::test_support

// Golden data: inputs, and what the paper authors' implementation made of them. tests/golden/NAME.safetensors holds one
// case; its metadata are the parameters.
//   q, k, v [B, N, H, D]; grad_out [B, H, N, D]; for the scorers X = norm and dilated: X.s_qk, X.s_kq [B, H, N],
//   X.idx [B, H, S] int32, X.o [B, H, N, D]; norm.dq, norm.dk, norm.dv [B, N, H, D].
#pragma once

#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "lighthouse/geometry.h"

namespace lighthouse::test_support {

class Golden {
 public:
  /// Reads LIGHTHOUSE_GOLDEN_DIR/NAME.safetensors, or `path` where it ends in .safetensors.
  explicit Golden(const std::string& name_or_path);

  int64_t number(const std::string& key) const;  ///< of the metadata: B, N, H, D, p, L, k, m, S, seed, dilation
  std::vector<int64_t> shape(const std::string& tensor) const;
  std::vector<float> floats(const std::string& tensor) const;
  std::vector<int32_t> ints(const std::string& tensor) const;
  SelectionConfig config() const;

 private:
  template <typename T>
  std::vector<T> read(const std::string& tensor, const char* dtype) const;

  nlohmann::json header_;
  std::string data_;
};

/// The stored inputs by formula, bit for bit: `count` values of an input of the case with this seed. Approximately
/// normal, and the same on every machine.
enum class GoldenInput : std::uint8_t { kQ = 0, kK = 1, kV = 2, kGradOut = 7 };
std::vector<float> golden_input(int64_t seed, GoldenInput input, int64_t count);

}  // namespace lighthouse::test_support

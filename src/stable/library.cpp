// The operators as the Python package loads them. Their Meta kernels and autograd are Python's
// (python/lighthouse_attention/operators.py): the stable ABI registers neither.
#include <torch/csrc/stable/library.h>

#include <string>
#include <string_view>

#include "ops/schema.h"

namespace {

/// Python's Meta kernels take symbols in `layout` too, as topk is one where it follows from N. Other kernels get
/// numbers.
std::string with_symbolic_layout(std::string schema) {
  constexpr std::string_view kNumbers = "int[] layout";
  const size_t place = schema.find(kNumbers);
  return place == std::string::npos ? schema : schema.replace(place, kNumbers.size(), "SymInt[] layout");
}

}  // namespace

STABLE_TORCH_LIBRARY(lighthouse, m) {
  for (const char* schema : lighthouse::ops::kSchemas) m.def(with_symbolic_layout(schema).c_str());
}

// The operators as the Python package loads them. Their Meta kernels and autograd are Python's
// (python/lighthouse_attention/operators.py): the stable ABI registers neither.
#include <torch/csrc/stable/library.h>

#include "ops/schema.h"

STABLE_TORCH_LIBRARY(lighthouse, m) {
  for (const char* schema : lighthouse::ops::kSchemas) m.def(schema);
}

// What turns heads: RoPE's angles, for the kernels of this layer and for those of gather.
#pragma once

#include <ATen/core/Tensor.h>

namespace lighthouse {

/// Cosine and sine of every token's angles, fp32 [N, 1, D/2]: channel c turns with channel c + D/2. Undefined, both:
/// heads do not turn.
struct Rotation {
  at::Tensor cos, sin;

  bool defined() const { return cos.defined() || sin.defined(); }
};

}  // namespace lighthouse

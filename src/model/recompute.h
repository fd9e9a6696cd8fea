// Layers that keep nothing but their input.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "model/host_stash.h"
#include "model/residual.h"

namespace lighthouse {

/// layer(in), without keeping what it would for backward: backward runs it again, on the sum of in. `layer` must give
/// the same bits again and own what it needs. With a stash the sum waits there; the layers of a pass must then come in
/// order.
using LayerFunction = std::function<Residual(const Residual& in)>;
Residual recomputed(const Residual& in, LayerFunction layer, const std::shared_ptr<HostStash>& stash);

}  // namespace lighthouse

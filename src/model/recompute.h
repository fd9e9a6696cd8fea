// Layers that keep nothing but their input and their selection.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>

#include "model/host_stash.h"
#include "model/residual.h"
#include "ops/gathering.h"

namespace lighthouse {

/// layer(in, selected), without keeping what it would for backward: backward runs it again, on the sum of in. `layer`
/// must give the same bits again and own what it needs. It is given nothing selected, and in backward what it has left
/// there. With a stash the sum waits in it, on the host if `offload`; the layers of a pass must then come in order.
using LayerFunction = std::function<Residual(const Residual& in, ops::Gathering& selected)>;
Residual recomputed(const Residual& in, LayerFunction layer, const std::shared_ptr<HostStash>& stash, bool offload);

}  // namespace lighthouse

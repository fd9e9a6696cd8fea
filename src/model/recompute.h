// Layers that keep nothing but the input of the first of them and what each selects.
#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <vector>

#include "model/feed_forward.h"
#include "model/host_stash.h"
#include "model/residual.h"
#include "ops/gathering.h"

namespace lighthouse {

/// Must give the same bits again and own what it needs. It is given nothing selected, and in backward what it has left
/// there.
using LayerFunction = std::function<Residual(const Residual& in, ops::Gathering& selected, ForwardFor use)>;

/// The layers one after another, without keeping what they would for backward but the sum of in. Backward runs them
/// again, all but the last to the inputs of those above, and then from the last to the first each with what its own
/// backward needs. With a stash the sum waits in it, on the host if `offload`; the calls of a pass must then come in
/// order.
Residual recomputed(Residual in, std::vector<LayerFunction> layers, const std::shared_ptr<HostStash>& stash,
                    bool offload);

}  // namespace lighthouse

// A gathering between forward and backward of an autograd function.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include "ops/gathering.h"

namespace lighthouse::ops {

/// Keeps it, behind other tensors.
void save(torch::autograd::AutogradContext* context, torch::autograd::variable_list tensors,
          const Gathering& gathering);

/// Of get_saved_variables().
Gathering saved_gathering(torch::autograd::AutogradContext* context, const torch::autograd::variable_list& saved);

}  // namespace lighthouse::ops

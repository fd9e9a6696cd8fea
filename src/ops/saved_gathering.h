// Gatherings between forward and backward of an autograd function.
#pragma once

#include <torch/csrc/autograd/custom_function.h>

#include <span>
#include <utility>
#include <vector>

#include "ops/gathering.h"

namespace lighthouse::ops {

/// Keeps them, behind other tensors.
void save(torch::autograd::AutogradContext* context, torch::autograd::variable_list tensors,
          std::span<const Gathering> gatherings);
inline void save(torch::autograd::AutogradContext* context, torch::autograd::variable_list tensors,
                 const Gathering& gathering) {
  save(context, std::move(tensors), {&gathering, 1});
}

/// Of get_saved_variables().
std::vector<Gathering> saved_gatherings(torch::autograd::AutogradContext* context,
                                        const torch::autograd::variable_list& saved);
/// Of a function that keeps one.
inline Gathering saved_gathering(torch::autograd::AutogradContext* context,
                                 const torch::autograd::variable_list& saved) {
  return saved_gatherings(context, saved)[0];
}

}  // namespace lighthouse::ops

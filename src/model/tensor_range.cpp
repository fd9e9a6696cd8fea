#include "model/tensor_range.h"

#include <functional>
#include <numeric>

#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {

std::vector<TensorRange> whole_ranges(const NamedTensors& tensors) {
  std::vector<TensorRange> ranges;
  for (const auto& [name, tensor] : tensors) {
    LIGHTHOUSE_CHECK(tensor.defined() && tensor.is_contiguous(), "tensor ", quoted(name),
                     " is undefined or not contiguous");
    ranges.push_back({name, tensor.sizes().vec(), 0, tensor.detach().view({-1})});
  }
  return ranges;
}

NamedTensors whole_tensors(const std::vector<TensorRange>& ranges) {
  NamedTensors tensors;
  for (const TensorRange& range : ranges) {
    const int64_t elements = std::accumulate(range.shape.begin(), range.shape.end(), int64_t{1}, std::multiplies<>());
    LIGHTHOUSE_CHECK(range.begin == 0 && range.end() == elements, "tensor ", quoted(range.name), ": elements ",
                     range.begin, " to ", range.end() - 1, " are not all of its ", elements);
    tensors.emplace_back(range.name, range.values.view(range.shape));
  }
  return tensors;
}

int64_t total_bytes(const std::vector<TensorRange>& ranges) {
  int64_t bytes = 0;
  for (const TensorRange& range : ranges) bytes += static_cast<int64_t>(range.values.nbytes());
  return bytes;
}

}  // namespace lighthouse

#include "model/tensor_file.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "io/errors.h"
#include "io/json_text.h"
#include "lighthouse/check.h"

namespace lighthouse {
namespace {

struct Dtype {
  at::ScalarType torch;
  const char* file;
};
constexpr std::array kDtypes = {Dtype{at::kDouble, "F64"},    Dtype{at::kFloat, "F32"}, Dtype{at::kHalf, "F16"},
                                Dtype{at::kBFloat16, "BF16"}, Dtype{at::kLong, "I64"},  Dtype{at::kInt, "I32"},
                                Dtype{at::kShort, "I16"},     Dtype{at::kChar, "I8"},   Dtype{at::kByte, "U8"},
                                Dtype{at::kBool, "BOOL"}};

template <typename Predicate>
const Dtype* find_dtype(const Predicate& is_wanted) {
  const auto* const found = std::find_if(kDtypes.begin(), kDtypes.end(), is_wanted);
  return found == kDtypes.end() ? nullptr : found;
}

}  // namespace

RawTensor raw_view(const std::string& name, const at::Tensor& tensor) {
  const Dtype* known = find_dtype([&](const Dtype& each) { return each.torch == tensor.scalar_type(); });
  LIGHTHOUSE_CHECK(known != nullptr, "tensor ", quoted(name), " has dtype ", c10::toString(tensor.scalar_type()),
                   "; safetensors holds floats of 16 to 64 bits, integers and bool");
  return {name,
          known->file,
          tensor.sizes().vec(),
          {static_cast<const std::byte*>(tensor.const_data_ptr()), tensor.nbytes()}};
}

HostTensors::HostTensors(const NamedTensors& named) {
  for (const auto& [name, tensor] : named) {
    LIGHTHOUSE_CHECK(tensor.defined() && tensor.layout() == at::kStrided, "tensor ", quoted(name),
                     " is undefined or not dense");
    tensors.push_back(tensor.detach().cpu().contiguous());
    views.push_back(raw_view(name, tensors.back()));
  }
}

at::Tensor read_tensor(const SafetensorsFile& file, const StoredTensor& stored) {
  const Dtype* known = find_dtype([&](const Dtype& each) { return each.file == stored.dtype; });
  if (known == nullptr) throw DamagedFile(detail::concat("tensor ", quoted(stored.name), " has dtype ", stored.dtype));
  at::Tensor tensor = at::empty(stored.shape, known->torch);
  file.read(stored, {static_cast<std::byte*>(tensor.mutable_data_ptr()), tensor.nbytes()});
  return tensor;
}

void write_tensors(const std::filesystem::path& path, const NamedTensors& tensors,
                   const std::map<std::string, std::string>& metadata) {
  write_safetensors(path, HostTensors(tensors).views, metadata);
}

NamedTensors read_tensors(const std::filesystem::path& path) {
  const SafetensorsFile file(path);
  NamedTensors tensors;
  for (const StoredTensor& stored : file.tensors()) tensors.emplace_back(stored.name, read_tensor(file, stored));
  return tensors;
}

}  // namespace lighthouse

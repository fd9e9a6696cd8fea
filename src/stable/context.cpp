#include "stable/context.h"

#include <torch/csrc/stable/ops.h>
#include <torch/headeronly/core/ScalarType.h>

#include <array>

#ifdef LIGHTHOUSE_WITH_CUDA
#include <cuda_runtime_api.h>
#include <dlfcn.h>

#include "cuda/launch.h"
#endif

namespace lighthouse::stable {
namespace {

using torch::headeronly::ScalarType;

constexpr std::pair<calls::Element, ScalarType> kElements[] = {{calls::Element::kFloat32, ScalarType::Float},
                                                               {calls::Element::kFloat64, ScalarType::Double},
                                                               {calls::Element::kBFloat16, ScalarType::BFloat16},
                                                               {calls::Element::kFloat16, ScalarType::Half},
                                                               {calls::Element::kInt32, ScalarType::Int}};

calls::Element element_of(ScalarType type) {
  for (const auto& [element, scalar_type] : kElements) {
    if (scalar_type == type) return element;
  }
  return calls::Element::kOther;
}

ScalarType scalar_type_of(calls::Element element) {
  for (const auto& [known, scalar_type] : kElements) {
    if (known == element) return scalar_type;
  }
  throw std::logic_error("lighthouse: a result of no element");
}

/// Not new_empty: that goes through boxed values and the dispatcher, which takes three times as long.
Tensor empty(std::span<const int64_t> sizes, ScalarType type, const torch::stable::Device& device) {
  constexpr size_t kMaxDimensions = 4;
  std::array<int64_t, kMaxDimensions> strides{};
  int64_t stride = 1;
  for (size_t i = sizes.size(); i-- > 0; stride *= sizes[i]) strides.at(i) = stride;
  AtenTensorHandle handle = nullptr;
  TORCH_ERROR_CODE_CHECK(aoti_torch_empty_strided(
      static_cast<int64_t>(sizes.size()), sizes.data(), strides.data(),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(type)),
      torch::stable::detail::to<int32_t>(torch::stable::detail::from(device.type())), device.index(), &handle));
  return Tensor(handle);
}

#ifdef LIGHTHOUSE_WITH_CUDA
/// The one C function that lives in libtorch_cuda. It is looked up when the first kernel runs, not linked, so that a
/// library with CUDA kernels loads into a torch without.
auto stream_getter() {
  using Getter = int32_t (*)(int32_t device, void** stream);
  static const auto getter = [] {
    void* library = dlopen("libtorch_cuda.so", RTLD_NOLOAD | RTLD_LAZY);
    return reinterpret_cast<Getter>(library ? dlsym(library, "aoti_torch_get_current_cuda_stream") : nullptr);
  }();
  if (!getter) {
    throw std::runtime_error(
        "lighthouse: this torch has no CUDA: libtorch_cuda.so is not loaded; install a torch that has");
  }
  return getter;
}
#endif

}  // namespace

calls::TensorView view(const Tensor& x) {
  calls::TensorView view;
  view.is_defined = x.defined();
  if (!view.is_defined) return view;
  view.is_strided = x.layout() == torch::headeronly::kStrided;
  const auto sizes = x.sizes();
  view.sizes = {sizes.data(), sizes.size()};
  view.element = element_of(x.scalar_type());
  view.element_name = torch::headeronly::toString(x.scalar_type());
  view.device = {static_cast<int>(x.device().type()), x.device().index()};
  if (!view.is_strided) return view;
  const auto strides = x.strides();
  view.strides = {strides.data(), strides.size()};
  view.data = const_cast<void*>(x.const_data_ptr());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  return view;
}

StableContext::StableContext(const Tensor& like) : device_(like.device()) {
#ifdef LIGHTHOUSE_WITH_CUDA
  if (device_.type() != torch::headeronly::DeviceType::CUDA) return;
  // Our runtime too: the library brings its own (cudart_static), so that it need not be of the version that torch was
  // built with, and loads where there is none.
  guard_.emplace(device_.index());
  LIGHTHOUSE_CUDA_CHECK(cudaSetDevice(device_.index()));
#endif
}

std::shared_ptr<void> StableContext::keep(int64_t bytes) {
  const int64_t sizes[] = {bytes};
  const auto memory = std::make_shared<Tensor>(empty(sizes, ScalarType::Byte, device_));
  return {memory, memory->mutable_data_ptr()};
}

const ParallelFor& StableContext::threads() {
  static const ParallelFor threads = [](int64_t count, int64_t grain, const auto& body) {
    torch::stable::parallel_for(0, count, grain, body);
  };
  return threads;
}

CudaStream StableContext::stream() {
  void* stream = nullptr;
#ifdef LIGHTHOUSE_WITH_CUDA
  if (stream_getter()(device_.index(), &stream) != 0) {
    throw std::runtime_error("lighthouse: torch has no current stream for cuda:" + std::to_string(device_.index()));
  }
#endif
  return static_cast<CudaStream>(stream);
}

calls::TensorView StableContext::make_result(std::span<const int64_t> sizes, calls::Element element) {
  results.push_back(empty(sizes, scalar_type_of(element), device_));
  return view(results.back());
}

void* StableContext::make_scratch(int64_t bytes) {
  const int64_t sizes[] = {bytes};
  scratch_.push_back(empty(sizes, ScalarType::Byte, device_));
  return scratch_.back().mutable_data_ptr();
}

}  // namespace lighthouse::stable

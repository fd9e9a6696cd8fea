#include "ops/aten_context.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>
#ifdef LIGHTHOUSE_WITH_CUDA
#include <c10/cuda/CUDAStream.h>
#endif

namespace lighthouse::ops {
namespace {

using calls::Element;

Element element_of(at::ScalarType type) {
  switch (type) {
    case at::kFloat:
      return Element::kFloat32;
    case at::kDouble:
      return Element::kFloat64;
    case at::kBFloat16:
      return Element::kBFloat16;
    case at::kHalf:
      return Element::kFloat16;
    case at::kInt:
      return Element::kInt32;
    default:
      return Element::kOther;
  }
}

at::ScalarType scalar_type_of(Element element) {
  for (const at::ScalarType type : {at::kFloat, at::kDouble, at::kBFloat16, at::kHalf}) {
    if (element_of(type) == element) return type;
  }
  return at::kInt;
}

}  // namespace

calls::TensorView view(const at::Tensor& x) {
  calls::TensorView view;
  view.is_defined = x.defined();
  if (!view.is_defined) return view;
  view.is_strided = x.layout() == at::kStrided;
  view.sizes = {x.sizes().data(), x.sizes().size()};
  view.element = element_of(x.scalar_type());
  view.element_name = c10::toString(x.scalar_type());
  view.device = {static_cast<int>(x.device().type()), x.device().index()};
  if (!view.is_strided) return view;
  view.strides = {x.strides().data(), x.strides().size()};
  view.data = const_cast<void*>(x.const_data_ptr());  // NOLINT(cppcoreguidelines-pro-type-const-cast)
  return view;
}

AtenContext::AtenContext(const at::Tensor& like) {
  if (!like.defined()) return;  // the call says so
  options_ = like.options();
  if (like.is_cuda()) guard_.reset_device(like.device());
}

std::shared_ptr<void> AtenContext::keep(int64_t bytes) {
  const auto memory = std::make_shared<at::Tensor>(at::empty({bytes}, options_.dtype(at::kByte)));
  return {memory, memory->mutable_data_ptr()};
}

const ParallelFor& AtenContext::threads() {
  static const ParallelFor threads = [](int64_t count, int64_t grain, const auto& body) {
    at::parallel_for(0, count, grain, body);
  };
  return threads;
}

CudaStream AtenContext::stream() {
#ifdef LIGHTHOUSE_WITH_CUDA
  return c10::cuda::getCurrentCUDAStream(options_.device().index()).stream();
#else
  return nullptr;
#endif
}

calls::TensorView AtenContext::make_result(std::span<const int64_t> sizes, Element element) {
  results.push_back(at::empty({sizes.data(), sizes.size()}, options_.dtype(scalar_type_of(element))));
  return view(results.back());
}

void* AtenContext::make_scratch(int64_t bytes) {
  scratch_.push_back(at::empty({bytes}, options_.dtype(at::kByte)));
  return scratch_.back().mutable_data_ptr();
}

}  // namespace lighthouse::ops

#include "ops/cuda_call.h"

#include "cuda/upload.h"

namespace lighthouse::ops {

CudaCall::CudaCall(const Tensor& like) : device_(like), stream_(current_stream(like)), like_(like) {}

float* CudaCall::floats(int64_t elements) {
  if (elements == 0) return nullptr;
  scratch_.push_back(empty({elements}, like_, ScalarType::Float));
  return scratch_.back().mutable_data_ptr<float>();
}

int32_t* CudaCall::integers(int64_t elements) {
  if (elements == 0) return nullptr;
  scratch_.push_back(empty({elements}, like_, ScalarType::Int));
  return scratch_.back().mutable_data_ptr<int32_t>();
}

const int32_t* CudaCall::uploaded(const std::vector<int32_t>& values) {
  int32_t* target = integers(static_cast<int64_t>(values.size()));
  upload(values, target, stream_);
  return target;
}

DevicePlan CudaCall::plan(const SequencePlan& plan) {
  const std::vector<DeviceDocument> documents = device_documents(plan);
  DevicePlan device = make_device_plan(plan, documents);
  if (documents.size() > 1) {
    const auto elements = static_cast<int64_t>(documents.size() * sizeof(DeviceDocument) / sizeof(int32_t));
    auto* table = reinterpret_cast<DeviceDocument*>(integers(elements));
    upload(documents, table, stream_);
    device.documents = table;
  }
  return device;
}

}  // namespace lighthouse::ops

#include "cuda/upload.h"

#include <algorithm>
#include <type_traits>

#include "cuda/launch.h"

namespace lighthouse {
namespace {

constexpr int kChunk = 1000;  // 4,000 bytes of the 4,096 that every launch can carry

struct Chunk {
  int32_t values[kChunk];
};

/// A thread owns one value.
__global__ void upload_kernel(const __grid_constant__ Chunk chunk, int32_t count, int32_t* target) {
  for (int32_t i = static_cast<int32_t>(threadIdx.x); i < count; i += static_cast<int32_t>(blockDim.x)) {
    target[i] = chunk.values[i];
  }
}

}  // namespace

void upload(std::span<const int32_t> values, int32_t* target, CudaStream stream) {
  for (size_t begin = 0; begin < values.size(); begin += kChunk) {
    const std::span<const int32_t> part = values.subspan(begin, std::min<size_t>(kChunk, values.size() - begin));
    Chunk chunk{};
    std::copy(part.begin(), part.end(), chunk.values);
    upload_kernel<<<1, 256, 0, stream>>>(chunk, static_cast<int32_t>(part.size()), target + begin);
    LIGHTHOUSE_CUDA_CHECK(cudaGetLastError());
  }
}

void upload(std::span<const DeviceDocument> documents, DeviceDocument* target, CudaStream stream) {
  static_assert(std::is_trivially_copyable_v<DeviceDocument> && sizeof(DeviceDocument) % sizeof(int32_t) == 0);
  const auto* values = reinterpret_cast<const int32_t*>(documents.data());
  upload(std::span(values, documents.size_bytes() / sizeof(int32_t)), reinterpret_cast<int32_t*>(target), stream);
}

}  // namespace lighthouse

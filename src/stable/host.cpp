#include "stable/host.h"

#include <cstdio>
#include <span>
#include <string>

#include "lighthouse/check.h"
#include "lighthouse/cpu_features.h"
#include "lighthouse/geometry.h"

#ifdef LIGHTHOUSE_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

extern "C" {

int lighthouse_plan(const char* operation, int64_t seq_len, const int64_t* layout, const int64_t* cu_seqlens,
                    int64_t num_offsets, int64_t* sizes, int64_t* num_rows, char* error, int64_t error_size) {
  try {
    lighthouse::SelectionConfig config;
    config.num_levels = layout[0];
    config.pooling_factor = layout[1];
    config.topk = layout[2];
    config.tile_topk = layout[3];
    const std::span<const int64_t> offsets(cu_seqlens, cu_seqlens ? static_cast<size_t>(num_offsets) : 0);
    LIGHTHOUSE_CHECK(!cu_seqlens || !offsets.empty(), operation,
                     ": cu_seqlens has 0 elements; it must hold the offsets 0, ..., ", seq_len, ", or be left out");
    const lighthouse::SequencePlan plan = lighthouse::make_plan(config, seq_len, offsets, operation);
    sizes[0] = plan.gathered_len;
    sizes[1] = plan.num_slots;
    for (size_t i = 0; num_rows && i < plan.documents.size(); ++i) num_rows[i] = plan.documents[i].num_rows;
    return 0;
  } catch (const std::exception& caught) {
    std::snprintf(error, static_cast<size_t>(error_size), "%s", caught.what());
    return 1;
  }
}

const char* lighthouse_version() { return LIGHTHOUSE_VERSION; }

const char* lighthouse_torch_version() { return LIGHTHOUSE_TORCH_VERSION; }

const char* lighthouse_cpu_error() {
  static const std::string error = [] {
    try {
      lighthouse::require_cpu_features();
      return std::string();
    } catch (const std::exception& caught) {
      return std::string(caught.what());
    }
  }();
  return error.c_str();
}

#ifdef LIGHTHOUSE_WITH_CUDA
int lighthouse_cuda_version() { return CUDART_VERSION; }
int lighthouse_driver_version() {
  int version = 0;
  return cudaDriverGetVersion(&version) == cudaSuccess ? version : 0;
}
const char* lighthouse_cuda_architectures() { return LIGHTHOUSE_CUDA_ARCHITECTURES; }
#else
int lighthouse_cuda_version() { return 0; }
int lighthouse_driver_version() { return 0; }
const char* lighthouse_cuda_architectures() { return ""; }
#endif

}  // extern "C"

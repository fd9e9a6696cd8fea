#include "stable/host.h"

#include <algorithm>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

#include "lighthouse/check.h"
#include "lighthouse/cpu_features.h"
#include "parallel/context_plan.h"
#include "stable/layout.h"

#ifdef LIGHTHOUSE_WITH_CUDA
#include <cuda_runtime_api.h>
#endif

namespace lighthouse {
namespace {

/// function(plan of the row), or what it throws as a message.
template <typename Function>
int with_plan(const lighthouse_row& row, char* error, int64_t error_size, const Function& function) {
  try {
    calls::Offsets offsets;
    if (row.cu_seqlens != nullptr) offsets.emplace(row.cu_seqlens, static_cast<size_t>(row.num_offsets));
    const calls::PlanArgument argument =
        stable::plan_argument({row.layout, static_cast<size_t>(row.layout_size)}, offsets, row.seq_len);
    function(argument.get(row.operation, /*batch=*/1, row.seq_len).sequence());
    return 0;
  } catch (const std::exception& caught) {
    std::snprintf(error, static_cast<size_t>(error_size), "%s", caught.what());
    return 1;
  }
}

/// Spans one behind another as the offsets between them.
void write_offsets(const std::vector<Span>& spans, int64_t* offsets) {
  for (const Span& span : spans) *offsets++ = span.begin;
  *offsets = spans.back().end;
}

}  // namespace
}  // namespace lighthouse

using lighthouse::Span;

extern "C" {

int lighthouse_plan(const lighthouse_row* row, int64_t* sizes, int64_t* num_rows, char* error, int64_t error_size) {
  return lighthouse::with_plan(*row, error, error_size, [&](const lighthouse::SequencePlan& plan) {
    sizes[0] = plan.gathered_len;
    sizes[1] = plan.num_slots;
    for (size_t i = 0; num_rows && i < plan.documents.size(); ++i) num_rows[i] = plan.documents[i].num_rows;
  });
}

int lighthouse_token_offsets(const lighthouse_row* row, int64_t num_ranks, int64_t* token_offsets, char* error,
                             int64_t error_size) {
  return lighthouse::with_plan(*row, error, error_size, [&](const lighthouse::SequencePlan& plan) {
    lighthouse::write_offsets(lighthouse::token_spans(plan, num_ranks), token_offsets);
  });
}

int lighthouse_context_plan(const lighthouse_row* row, int64_t num_ranks, int64_t rank, const int64_t* token_offsets,
                            int64_t* row_offsets, int64_t* sizes, char* error, int64_t error_size) {
  return lighthouse::with_plan(*row, error, error_size, [&](const lighthouse::SequencePlan& whole) {
    std::vector<Span> tokens;
    for (int64_t i = 0; i < num_ranks; ++i) tokens.push_back({token_offsets[i], token_offsets[i + 1]});
    const lighthouse::ContextPlan plan = lighthouse::context_plan(whole, tokens, rank);
    lighthouse::write_offsets(plan.rows, row_offsets);
    const int64_t results[] = {plan.tiles.begin, plan.tiles.end, plan.continues_before ? 1 : 0, plan.tokens_after,
                               plan.num_halo};
    std::copy(std::begin(results), std::end(results), sizes);
  });
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

// The calls (calls/calls.h) on at::Tensor.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/record_function.h>
#include <c10/core/DeviceGuard.h>
#include <c10/util/SmallVector.h>

#include "calls/calls.h"
#include "lighthouse/check.h"
#include "ops/gathering.h"

namespace lighthouse::ops {

calls::TensorView view(const at::Tensor& x);

inline calls::Heads view(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v) {
  return {view(q), view(k), view(v)};
}

inline calls::GatheringView view(const Gathering& gathering) {
  return {gathering.plan, view(gathering.selection), view(gathering.slots)};
}

inline calls::Offsets offsets_of(at::OptionalIntArrayRef cu_seqlens) {
  return cu_seqlens ? calls::Offsets({cu_seqlens->data(), cu_seqlens->size()}) : std::nullopt;
}

using Results = c10::SmallVector<at::Tensor, 5>;

/// Of the device of `like`.
class AtenContext final : public calls::CallContext {
 public:
  explicit AtenContext(const at::Tensor& like);

  /// The results so far, in order.
  Results results;

  std::shared_ptr<void> keep(int64_t bytes) override;
  const ParallelFor& threads() override;
  CudaStream stream() override;

 private:
  calls::TensorView make_result(std::span<const int64_t> sizes, calls::Element element) override;
  void* make_scratch(int64_t bytes) override;

  at::TensorOptions options_;
  c10::OptionalDeviceGuard guard_;
  c10::SmallVector<at::Tensor, 6> scratch_;
};

/// body(), its errors restated as PyTorch's: c10::ValueError for InvalidArgument, else c10::Error.
template <typename Body>
auto restate_errors(const Body& body) {
  try {
    return body();
  } catch (const InvalidArgument& error) {
    TORCH_CHECK_VALUE(false, error.what());
  } catch (const std::runtime_error& error) {
    TORCH_CHECK(false, error.what());
  }
}

/// The results of body(context), a call, which profilers see by `name`.
template <typename Body>
Results run(const char* name, const at::Tensor& like, const Body& body) {
  RECORD_FUNCTION(name, c10::ArrayRef<const c10::IValue>{});
  return restate_errors([&] {
    AtenContext context(like);
    body(context);
    return std::move(context.results);
  });
}

}  // namespace lighthouse::ops

#include "ops/cudnn_plan.h"

#include <ATen/cuda/CUDAContext.h>
#include <ATen/cudnn/Handle.h>
#include <c10/cuda/CUDACachingAllocator.h>
#include <c10/cuda/CUDAGraphsC10Utils.h>
#include <dlfcn.h>

#include <set>

namespace cudnn_frontend {
/// Where cudnn-frontend looks its functions up: the cuDNN that libtorch_cuda brought into the process, and no other.
/// Linking would do too, but would make the library need the driver, which a machine that only builds does not have.
void* cudnn_dlhandle = dlopen(("libcudnn.so." + std::to_string(CUDNN_MAJOR)).c_str(), RTLD_NOW | RTLD_NOLOAD);
}  // namespace cudnn_frontend

namespace lighthouse::ops {
namespace {

constexpr size_t kMinimumVersion = 91800;  // the first that has the repeatable backward on Blackwell too

}  // namespace

bool cudnn_serves(const at::Tensor& x) {
  if (fe::cudnn_dlhandle == nullptr || fe::detail::get_backend_version() < kMinimumVersion) return false;
  const int capability = at::cuda::getDeviceProperties(x.device().index())->major;
  return capability == 9 || capability == 10;
}

CudnnPlan build_plan(const std::string& what, const std::shared_ptr<fe::graph::Graph>& graph) {
  const cudnnHandle_t handle = at::native::getCudnnHandle();
  if (graph->validate().is_bad() || graph->build_operation_graph(handle).is_bad() ||
      graph->create_execution_plans({fe::HeurMode_t::A}).is_bad() || graph->check_support().is_bad()) {
    return {};
  }
  const fe::error_t built = graph->build_plans();
  TORCH_CHECK(built.is_good(), what, ": cuDNN supports it, but Graph::build_plans failed: ", built.err_msg);
  CudnnPlan plan{graph, 0};
  const fe::error_t asked = graph->get_workspace_size(plan.workspace_bytes);
  TORCH_CHECK(asked.is_good(), what, ": Graph::get_workspace_size failed: ", asked.err_msg);
  return plan;
}

fe::error_t run_plan(const CudnnPlan& plan, std::unordered_map<int64_t, void*> pointers, void* workspace) {
  const cudnnHandle_t handle = at::native::getCudnnHandle();  // on the current stream
  const std::lock_guard lock(plans_mutex());
  return plan.graph->execute(handle, pointers, workspace);
}

c10::DataPtr workspace_of(const CudnnPlan& plan) {
  // Not at::empty, which fills memory in PyTorch's deterministic mode.
  return c10::cuda::CUDACachingAllocator::get()->allocate(
      static_cast<size_t>(std::max<int64_t>(1, plan.workspace_bytes)));
}

std::mutex& plans_mutex() {
  static std::mutex mutex;
  return mutex;
}

void keep_while_captured(const std::shared_ptr<const void>& plan) {
  static auto& captured = *new std::set<std::shared_ptr<const void>>;
  if (c10::cuda::currentStreamCaptureStatusMayInitCtx() == c10::cuda::CaptureStatus::None) return;
  const std::lock_guard lock(plans_mutex());
  captured.insert(plan);
}

fe::graph::Graph& with_types(fe::graph::Graph& graph, at::ScalarType dtype) {
  return graph.set_io_data_type(dtype == at::kHalf ? fe::DataType_t::HALF : fe::DataType_t::BFLOAT16)
      .set_intermediate_data_type(fe::DataType_t::FLOAT)
      .set_compute_data_type(fe::DataType_t::FLOAT);
}

}  // namespace lighthouse::ops

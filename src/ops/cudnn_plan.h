// Plans of cuDNN's graphs: how they are built, kept and run. Its headers are heavy: only the files that describe graphs
// see them.
#pragma once

#include <ATen/core/Tensor.h>
#include <cudnn_frontend.h>

#include <algorithm>
#include <cstdint>
#include <list>
#include <memory>
#include <mutex>
#include <string>
#include <unordered_map>
#include <utility>
#include <vector>

namespace lighthouse::ops {

namespace fe = cudnn_frontend;

/// A graph that cuDNN can run, and the memory that it needs for that.
struct CudnnPlan {
  std::shared_ptr<fe::graph::Graph> graph;
  int64_t workspace_bytes = 0;
};

/// Whether this process and the device of x have cuDNN's attention as it is used here: 9.18 or newer, on a device of
/// compute capability 9.x or 10.x.
bool cudnn_serves(const at::Tensor& x);

/// The plan of a graph for the current device; no graph where cuDNN has none. Throws c10::Error where it has one and
/// cannot build it; `what` says of what.
CudnnPlan build_plan(const std::string& what, const std::shared_ptr<fe::graph::Graph>& graph);

/// Runs it on the current stream of the current device, in `workspace`. The caller looks at what it returns.
[[nodiscard]] fe::error_t run_plan(const CudnnPlan& plan, std::unordered_map<int64_t, void*> pointers, void* workspace);

/// Memory for a plan, of the caching allocator.
c10::DataPtr workspace_of(const CudnnPlan& plan);

/// cuDNN does not promise that threads can run one plan at the same time: what looks up, builds or runs one holds this.
std::mutex& plans_mutex();

/// A CUDA graph runs the code of a plan for as long as it exists, and cuDNN 9.19 frees that with the plan. So a plan
/// that was captured stays.
void keep_while_captured(const std::shared_ptr<const void>& plan);

/// Inputs and outputs of `dtype`, fp16 or bf16, all between in fp32.
fe::graph::Graph& with_types(fe::graph::Graph& graph, at::ScalarType dtype);

/// The latest plans by all that they depend on. Of static life, and not freed: at exit the driver may be gone.
template <typename Plan>
class PlanCache {
 public:
  explicit PlanCache(size_t most) : most_(most) {}

  /// That of `key`, or what `make` gives, which is kept; null is kept too.
  template <typename Make>
  std::shared_ptr<const Plan> find(const std::vector<int64_t>& key, const Make& make) {
    const std::lock_guard lock(plans_mutex());
    const auto found =
        std::find_if(entries_.begin(), entries_.end(), [&](const Entry& entry) { return entry.first == key; });
    if (found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
    } else {
      entries_.emplace_front(key, make());
      if (entries_.size() > most_) entries_.pop_back();
    }
    return entries_.front().second;
  }

 private:
  using Entry = std::pair<std::vector<int64_t>, std::shared_ptr<const Plan>>;
  std::list<Entry> entries_;  // latest first
  size_t most_;
};

}  // namespace lighthouse::ops

#include <torch/csrc/distributed/c10d/Backend.hpp>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include "lighthouse/check.h"
#include "parallel/backend.h"

namespace lighthouse {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& /*store*/, int64_t /*rank*/,
                                            int64_t /*size*/, std::chrono::milliseconds /*timeout*/) {
  throw InvalidArgument(
      "ranks on GPUs need NCCL, and this program is built without CUDA; build it where nvcc is found, "
      "or take the CPU");
}

c10::intrusive_ptr<c10d::Work> without_tensors(const c10::intrusive_ptr<c10d::Work>& work) { return work; }

std::string recorded_by_nccl() { return ""; }

}  // namespace lighthouse

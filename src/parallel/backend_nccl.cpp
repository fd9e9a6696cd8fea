#include <cstdlib>
#include <torch/csrc/distributed/c10d/ProcessGroupNCCL.hpp>

#include "parallel/backend.h"

namespace lighthouse {

c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
                                            std::chrono::milliseconds timeout) {
  // An error of NCCL is the collective's, which Lookout reports; torch's watchdog would end the process. Read at
  // creation.
  ::setenv("TORCH_NCCL_ASYNC_ERROR_HANDLING", "0", /*overwrite=*/0);
  // What runs beside a collective, to hide it, must not keep it from starting.
  auto options = c10d::ProcessGroupNCCL::Options::create(/*is_high_priority_stream=*/true);
  options->timeout = timeout;
  return c10::make_intrusive<c10d::ProcessGroupNCCL>(store, static_cast<int>(rank), static_cast<int>(size), options);
}

c10::intrusive_ptr<c10d::Work> without_tensors(const c10::intrusive_ptr<c10d::Work>& work) {
  const auto* const of_nccl = dynamic_cast<const c10d::ProcessGroupNCCL::WorkNCCL*>(work.get());
  if (of_nccl == nullptr) return work;
  return c10::make_intrusive<c10d::ProcessGroupNCCL::WorkNCCL>(*of_nccl);  // as torch's watchdog does
}

std::string recorded_by_nccl() { return c10d::dump_nccl_trace_json(/*includeCollectives=*/true, /*onlyActive=*/false); }

}  // namespace lighthouse

// The communication libraries of torch, each behind one function, so that their headers are read in one place.
#pragma once

#include <c10/core/Device.h>
#include <c10/util/intrusive_ptr.h>

#include <chrono>
#include <cstdint>
#include <string>

namespace c10d {
class Backend;
class Store;
class Work;
}  // namespace c10d

namespace lighthouse {

/// A communicator of `size` ranks that meet in `store`: NCCL for tensors on a GPU, Gloo for tensors on the CPU. Every
/// rank makes it at the same time; a collective that takes longer than `timeout` fails. `address` is the store's: Gloo
/// listens on the loopback where that is one, else where this host's name leads or GLOO_SOCKET_IFNAME says.
c10::intrusive_ptr<c10d::Backend> make_backend(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
                                               c10::Device device, const std::string& address,
                                               std::chrono::milliseconds timeout);

/// What tells whether `work` has ended, without the tensors that NCCL's keeps. A work of Gloo's is itself.
c10::intrusive_ptr<c10d::Work> without_tensors(const c10::intrusive_ptr<c10d::Work>& work);

/// What c10d's flight recorder has of the last collectives of this process on such a device, as JSON: their order,
/// sizes, types and states. TORCH_FR_BUFFER_SIZE says how many (2,000; 0: none, and the result is empty of them).
std::string recorded_collectives(c10::Device device);

c10::intrusive_ptr<c10d::Backend> make_gloo(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
                                            const std::string& address, std::chrono::milliseconds timeout);
/// Throws InvalidArgument in a build without CUDA.
c10::intrusive_ptr<c10d::Backend> make_nccl(const c10::intrusive_ptr<c10d::Store>& store, int64_t rank, int64_t size,
                                            std::chrono::milliseconds timeout);
std::string recorded_by_gloo();
std::string recorded_by_nccl();

}  // namespace lighthouse

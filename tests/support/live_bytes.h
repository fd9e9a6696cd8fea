// What the CPU's allocator has handed out and not got back.
#pragma once

#include <c10/core/Allocator.h>

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <thread>

namespace lighthouse {

/// The CPU's allocator, which counts what has been handed out and not got back while it stands in its place. In all
/// threads: those of Gloo free what the thread that sends has allocated.
class LiveBytes final : public c10::Allocator {
 public:
  LiveBytes() : allocator_(*c10::GetAllocator(c10::kCPU)) { c10::SetAllocator(c10::kCPU, this, kPriority); }
  ~LiveBytes() override { c10::SetAllocator(c10::kCPU, &allocator_, kPriority); }
  LiveBytes(const LiveBytes&) = delete;
  LiveBytes& operator=(const LiveBytes&) = delete;

  c10::DataPtr allocate(size_t size) override {
    void* memory = ::operator new (kHeaderSize + size, std::align_val_t{kHeaderSize});
    counts_->add((new (memory) Header{counts_, static_cast<int64_t>(size)})->size);
    void* data = static_cast<std::byte*>(memory) + kHeaderSize;
    return {data, data, &free_data, c10::kCPU};
  }
  c10::DeleterFnPtr raw_deleter() const override { return &free_data; }
  void copy_data(void* to, const void* from, size_t count) const override { default_copy_data(to, from, count); }

  int64_t most() const { return counts_->most; }
  /// Once nothing is freed any more in other threads.
  int64_t bytes() const {
    int64_t last = counts_->live, same = 0;
    while (same < 3) {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      const int64_t now = counts_->live;
      same = now == last ? same + 1 : 0;
      last = now;
    }
    return last;
  }

 private:
  static constexpr uint8_t kPriority = 100;
  struct Counts {
    std::atomic<int64_t> live = 0, most = 0;
    void add(int64_t size) {
      const int64_t now = live += size;
      if (now > most) most = now;
    }
  };
  struct Header {
    std::shared_ptr<Counts> counts;  // what was allocated may live longer than the allocator
    int64_t size;
  };
  static constexpr size_t kHeaderSize = 64;  // before the data, whose alignment it keeps
  static void free_data(void* data) {
    void* memory = static_cast<std::byte*>(data) - kHeaderSize;
    auto* header = static_cast<Header*>(memory);
    header->counts->live -= header->size;
    std::destroy_at(header);
    ::operator delete (memory, std::align_val_t{kHeaderSize});
  }

  c10::Allocator& allocator_;
  std::shared_ptr<Counts> counts_ = std::make_shared<Counts>();
};

}  // namespace lighthouse

// Loaded before a program (LD_PRELOAD): lets one allocation of a tensor's memory fail, the one with the number in
// LIGHTHOUSE_FAIL_ALLOCATION, and writes how many there were into the file of LIGHTHOUSE_COUNT_ALLOCATIONS. Those on
// the CPU; with LIGHTHOUSE_ALLOCATIONS_OF=cuda those that torch's allocator makes on a GPU (without expandable
// segments), where it keeps what is free together with the two by which it tries once more after it has let go of that.
#include <dlfcn.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace {

std::atomic<long> count;

bool is_of_torch(void* caller) {
  Dl_info info;
  return ::dladdr(caller, &info) != 0 && info.dli_fname != nullptr && std::strstr(info.dli_fname, "libc10") != nullptr;
}

bool is_on_gpu() {
  static const char* const of = std::getenv("LIGHTHOUSE_ALLOCATIONS_OF");
  static const bool on_gpu = of != nullptr && std::strcmp(of, "cuda") == 0;
  return on_gpu;
}

/// Whether the next allocation is one of those that fail.
bool fails(long tries) {
  static const char* const text = std::getenv("LIGHTHOUSE_FAIL_ALLOCATION");
  static const long at = text == nullptr ? -1 : std::atol(text);
  const long number = count++;
  return at >= 0 && number >= at && number < at + tries;
}

struct AtTheEnd {
  ~AtTheEnd() {
    const char* path = std::getenv("LIGHTHOUSE_COUNT_ALLOCATIONS");
    std::FILE* file = path == nullptr ? nullptr : std::fopen(path, "w");
    if (file == nullptr) return;
    std::fprintf(file, "%ld\n", count.load());
    std::fclose(file);
  }
} at_the_end;

}  // namespace

extern "C" int posix_memalign(void** memory, size_t alignment, size_t size) noexcept {
  static const auto real = reinterpret_cast<int (*)(void**, size_t, size_t)>(::dlsym(RTLD_NEXT, "posix_memalign"));
  if (!is_on_gpu() && is_of_torch(__builtin_return_address(0)) && fails(1)) return ENOMEM;
  return real(memory, alignment, size);
}

extern "C" int cudaMalloc(void** memory, size_t size) {
  static const auto real = reinterpret_cast<int (*)(void**, size_t)>(::dlsym(RTLD_NEXT, "cudaMalloc"));
  static const long tries = std::getenv("PYTORCH_NO_CUDA_MEMORY_CACHING") == nullptr ? 3 : 1;
  constexpr int kErrorMemoryAllocation = 2;
  if (is_on_gpu() && is_of_torch(__builtin_return_address(0)) && fails(tries)) return kErrorMemoryAllocation;
  return real(memory, size);
}

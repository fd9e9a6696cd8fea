#include "train/out_of_memory.h"

#include <c10/util/Exception.h>

#include <new>
#include <stdexcept>

#include "plan/advice.h"
#include "train/device_memory.h"
#include "train/text.h"

namespace lighthouse {
namespace {

/// Where an error of torch that says so begins to; npos: it does not. Only its own allocator on a device has a type for
/// it. Libraries that allocate beside that one, where it has left nothing, have words.
size_t out_of_memory_words(const std::string& text) {
  for (const char* words : {"DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED",
                            "CUDA error: out of memory"}) {
    const size_t begin = text.find(words);
    if (begin != std::string::npos) return begin;
  }
  return std::string::npos;
}

}  // namespace

std::optional<std::string> out_of_memory_reason(const std::exception& error) {
  if (dynamic_cast<const std::bad_alloc*>(&error) != nullptr) return "the host has no more of it";
  if (dynamic_cast<const std::length_error*>(&error) != nullptr) return "more is asked for than any machine has";
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  if (of_torch == nullptr) return std::nullopt;
  const std::string text = of_torch->what_without_backtrace();
  const size_t words = out_of_memory_words(text);
  if (dynamic_cast<const c10::OutOfMemoryError*>(of_torch) == nullptr && words == std::string::npos)
    return std::nullopt;
  const size_t begin = words == std::string::npos ? 0 : words;
  return text.substr(begin, text.find('\n', begin) - begin);
}

std::string words_of(const std::exception& error) {
  if (const auto memory = out_of_memory_reason(error)) return "out of memory: " + *memory;
  const auto* of_torch = dynamic_cast<const c10::Error*>(&error);
  return of_torch == nullptr ? error.what() : of_torch->what_without_backtrace();
}

std::string out_of_memory_message(const RunConfig& config, at::Device device, const std::string& where,
                                  const std::string& reason) {
  std::string message = "out of memory " + where + ": " + reason;
  const auto memory = device_memory(device);
  if (!memory) return message;
  const auto bytes = [](int64_t count) { return with_unit(static_cast<double>(count)) + "B"; };
  return message + "\n" + bytes(memory->allocated) + " are in tensors, " + bytes(memory->reserved) +
         " are reserved, the most in tensors was " + bytes(memory->peak_allocated) + "\n" +
         memory_advice(config, {.available = memory->available(),
                                .others = memory->total - memory->available(),
                                .scattered = memory->reserved - memory->peak_allocated,
                                .segments_expand = segments_expand()});
}

}  // namespace lighthouse

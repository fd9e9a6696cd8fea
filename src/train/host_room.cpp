#include "train/host_room.h"

#include "io/host_memory.h"
#include "lighthouse/check.h"
#include "train/text.h"

namespace lighthouse {
namespace {

std::string bytes_text(int64_t bytes) { return with_unit(static_cast<double>(bytes)) + "B"; }

}  // namespace

std::runtime_error no_host_memory(int64_t bytes, const std::string& what, const std::string& reason,
                                  const std::string& remedy) {
  return std::runtime_error(
      detail::concat("no ", bytes_text(bytes), " of host memory ", what, " (", reason, "); ", remedy));
}

void check_host_room(int64_t bytes, const std::string& what, const std::string& remedy) {
  const auto memory = host_memory();
  if (!memory || bytes <= memory->available) return;
  throw no_host_memory(bytes, what, bytes_text(memory->available) + " are free", remedy);
}

}  // namespace lighthouse

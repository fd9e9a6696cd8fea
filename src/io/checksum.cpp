#include "io/checksum.h"

#define XXH_INLINE_ALL  // header only: nothing to link
#include <xxhash.h>

#include <iomanip>
#include <sstream>

namespace lighthouse {

namespace {
std::string to_hex(const XXH128_hash_t& hash) {
  std::ostringstream text;
  text << std::hex << std::setfill('0') << std::setw(16) << hash.high64 << std::setw(16) << hash.low64;
  return text.str();
}
}  // namespace

struct Checksum::State {
  XXH3_state_t xxh3;
};

Checksum::Checksum() : state_(std::make_unique<State>()) { XXH3_128bits_reset(&state_->xxh3); }
Checksum::~Checksum() = default;
void Checksum::update(std::span<const std::byte> bytes) {
  if (!bytes.empty()) XXH3_128bits_update(&state_->xxh3, bytes.data(), bytes.size());
}
std::string Checksum::hex() const { return to_hex(XXH3_128bits_digest(&state_->xxh3)); }

std::string checksum(std::span<const std::byte> bytes) { return to_hex(XXH3_128bits(bytes.data(), bytes.size())); }

}  // namespace lighthouse

// XXH3-128: fast enough to check every byte that is read or written; not a protection against malice.
#pragma once

#include <cstddef>
#include <memory>
#include <span>
#include <string>

namespace lighthouse {

/// Checksum of bytes that come in parts.
class Checksum {
 public:
  Checksum();
  ~Checksum();
  void update(std::span<const std::byte> bytes);
  /// Of everything so far: 32 lower-case hexadecimal digits, as `xxhsum -H128` prints them.
  std::string hex() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string checksum(std::span<const std::byte> bytes);

}  // namespace lighthouse

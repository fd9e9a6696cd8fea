#include "io/checksum.h"

#include <gtest/gtest.h>

#include <string>

namespace lighthouse {
namespace {

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

// The values that `xxhsum -H128` prints.
TEST(Checksum, KnownValues) {
  EXPECT_EQ(checksum({}), "99aa06d3014798d86001c324468d497f");
  EXPECT_EQ(checksum(bytes_of("lighthouse\n")), "c948ec4519c07ff92bee8bc73da40715");
}

TEST(Checksum, PartsEqualWhole) {
  const std::string text(100'000, 'x');
  for (const size_t part : {size_t{1}, size_t{255}, size_t{4096}, size_t{99'999}}) {
    Checksum running;
    for (size_t begin = 0; begin < text.size(); begin += part) running.update(bytes_of(text.substr(begin, part)));
    EXPECT_EQ(running.hex(), checksum(bytes_of(text))) << part;
  }
  EXPECT_EQ(Checksum().hex(), checksum({}));
}

}  // namespace
}  // namespace lighthouse

// Reads many files of safetensors out of one, each behind its length in 8 bytes, and writes a line for each:
// "accepted", or why it is refused. For safetensors_mutants.py.
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iterator>

#include "io/errors.h"
#include "io/safetensors.h"
#include "robust/fuzz.h"

int main(int argc, char** argv) {
  using namespace lighthouse;
  if (argc != 2) return 2;
  std::ifstream stream(argv[1], std::ios::binary);
  const std::string all{std::istreambuf_iterator<char>(stream), {}};
  const fuzz::InputInFile file("safetensors");
  for (size_t place = 0; place + 8 <= all.size();) {
    uint64_t length = 0;
    std::memcpy(&length, all.data() + place, 8);
    const std::string path = file.with(std::string_view(all).substr(place + 8, length));
    place += 8 + length;
    try {
      const SafetensorsFile tensors(path);
      std::puts("accepted");
    } catch (const DamagedFile& error) {
      std::puts(error.what());
    }
  }
  return 0;
}

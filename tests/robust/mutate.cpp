// Drives a harness where there is no libFuzzer: changes its seeds, always the same way, for some time.
//   fuzz_toml SECONDS FOLDER_OF_SEEDS [INPUT...]    inputs, as libFuzzer leaves them, are tried first, as they are
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

#include "robust/fuzz.h"

namespace {

using Clock = std::chrono::steady_clock;
constexpr size_t kMostBytes = 1 << 16;
constexpr size_t kMostRepeated = 1 << 20;

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

void run(const std::string& input) {
  LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t*>(input.data()), input.size());
}

/// A piece of a few bytes many times over, as what is nested is: by doubling, so that most are short.
std::string repeated(const std::string& piece, std::mt19937_64& random) {
  std::string text = piece;
  while (!text.empty() && text.size() < kMostRepeated && random() % 16 != 0) text += text;
  return text;
}

/// A few changes: bits, bytes, numbers at their limits, pieces of this seed or another moved, copied or cut. Or one
/// piece of it that stands there many times.
std::string mutant(const std::vector<std::string>& seeds, std::mt19937_64& random) {
  static const char* const kPieces[] = {"0",       "-1",  "9223372036854775808",
                                        "1e999",   "\"",  "{",
                                        "[",       "]",   "}",
                                        "\\u0000", "\n",  "null",
                                        "true",    ",",   ":",
                                        "=",       "#",   "\xc3\xa9",
                                        "\xff",    "\x1b"};
  const auto below = [&](size_t limit) { return limit == 0 ? 0 : static_cast<size_t>(random() % limit); };
  std::string text = seeds[below(seeds.size())];
  if (below(256) == 0 && !text.empty()) {
    const size_t place = below(text.size());
    return text.insert(place, repeated(text.substr(place, 1 + below(8)), random));
  }
  for (size_t changes = 1 + below(4); changes > 0; --changes) {
    const size_t place = below(text.size());
    const std::string& other = seeds[below(seeds.size())];
    switch (below(6)) {
      case 0:
        if (!text.empty()) text[place] = static_cast<char>(text[place] ^ (1 << below(8)));
        break;
      case 1:
        if (!text.empty()) text[place] = static_cast<char>(random());
        break;
      case 2:
        text.insert(place, kPieces[below(std::size(kPieces))]);
        break;
      case 3:
        text.erase(place, 1 + below(text.size() / 4));
        break;
      case 4:
        text.insert(place, other.substr(below(other.size()), below(64)));
        break;
      default:
        text.resize(place);
    }
  }
  text.resize(std::min(text.size(), kMostBytes));
  return text;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return 2;
  for (int index = 3; index < argc; ++index) run(read(argv[index]));
  std::vector<std::string> seeds = {""};
  for (const auto& entry : std::filesystem::directory_iterator(argv[2])) seeds.push_back(read(entry.path()));
  std::mt19937_64 random(1);
  size_t executions = 0;
  const auto end = Clock::now() + std::chrono::duration<double>(std::atof(argv[1]));
  for (; Clock::now() < end; ++executions) run(mutant(seeds, random));
  std::printf("%zu executions\n", executions);
  return 0;
}

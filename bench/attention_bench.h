// `lighthouse bench attention`: Lighthouse attention beside dense attention, which it replaces, and beside stock
// attention at the gathered length, which nothing built on it can beat.
#pragma once

#include <cstdint>
#include <filesystem>
#include <iosfwd>
#include <string>
#include <vector>

#include "lighthouse/geometry.h"
#include "lighthouse/ops.h"

namespace lighthouse::bench {

struct BenchOptions {
  std::vector<int64_t> seq_lens{4096, 16384, 65536};  ///< N, ascending
  int64_t batch = 1;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 4;
  int64_t head_dim = 64;
  SelectionConfig selection{.num_levels = 3, .pooling_factor = 4, .topk = 0};  ///< topk 0: N / 64
  ScoreConfig score;                                                           ///< norm or dilated
  std::string device = "cpu";
  std::string dtype = "float32";  ///< float32, float64, bfloat16, float16
  double seconds = 5;             ///< for each measurement, see TimingLimits
  int64_t max_dense_len = 65536;  ///< dense attention is left out beyond
  bool check = false;             ///< compare with composed_attention in fp64 before timing
  std::filesystem::path output;   ///< JSON lines; empty: none
};

/// Writes a table to `out` as it goes, and JSON lines to options.output when all is done. Throws InvalidArgument for
/// options out of range, std::system_error naming the output file, std::runtime_error where the check fails.
void run_attention_bench(const BenchOptions& options, std::ostream& out);

}  // namespace lighthouse::bench

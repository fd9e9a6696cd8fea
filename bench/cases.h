// The options of `lighthouse bench attention` and the cases that they ask for.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lighthouse/geometry.h"
#include "lighthouse/ops.h"

namespace lighthouse::bench {

struct BenchOptions {
  std::vector<int64_t> seq_lens{2048, 4096, 8192};  ///< N
  std::string suite;                                ///< "paper": its cases, in place of seq_lens, selection and score
  int64_t batch = 1;
  int64_t num_heads = 4;
  int64_t num_kv_heads = 4;
  int64_t head_dim = 64;
  SelectionConfig selection{.num_levels = 3, .pooling_factor = 4, .topk = 0};  ///< topk 0: N / 64
  ScoreConfig score;                                                           ///< gla gets a random gate
  std::string device = "cpu";                                                  ///< or cuda
  std::string dtype = "float32";                                               ///< float32, float64, bfloat16, float16
  double seconds = 1;             ///< for each measurement, see TimingLimits
  int64_t max_dense_len = 65536;  ///< dense attention is left out beyond
  int64_t max_graph_len = 32768;  ///< forward+backward is timed in a CUDA graph too up to here
  bool check = false;             ///< compare with composed_attention in fp64 before timing
  std::filesystem::path output;   ///< JSON lines; empty: none
};

/// The defaults above, or those for CUDA: one layer of the paper's model in bf16 at the lengths of its table.
BenchOptions default_options(const std::string& device);

/// Throws InvalidArgument for the first option out of range.
void check_options(const BenchOptions& options);

at::ScalarType dtype_of(const BenchOptions& options);

struct AttentionCase {
  int64_t seq_len;
  SelectionConfig selection;
  ScoreConfig score;

  int64_t gathered_len() const { return gathered_length(seq_len, selection); }
};

/// Of checked options, ascending by length.
std::vector<AttentionCase> cases_of(const BenchOptions& options);

/// L = 3, p = 4, k = N / 64 with scorer norm: S is 3/16 N at every length, so times can be compared across lengths.
bool has_paper_shape(const AttentionCase& attention_case);

}  // namespace lighthouse::bench

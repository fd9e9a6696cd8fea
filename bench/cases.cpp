#include "bench/cases.h"

#include <algorithm>
#include <cmath>

#include "lighthouse/check.h"

namespace lighthouse::bench {
namespace {

constexpr const char* kOperation = "bench attention";
constexpr const char* kPaper = "paper";

AttentionCase make_case(int64_t seq_len, int64_t num_levels, int64_t pooling_factor, int64_t topk,
                        Scorer scorer = Scorer::kNorm) {
  return {seq_len,
          {.num_levels = num_levels, .pooling_factor = pooling_factor, .topk = topk},
          {.scorer = scorer, .dilation = 4}};
}

/// The paper's layer at every length for which it or its code gives a figure, and two lengths below, where dense wins.
std::vector<AttentionCase> paper_cases() {
  std::vector<AttentionCase> cases;
  for (const int64_t seq_len : {2048, 4096, 8192, 16384, 32768, 65536, 98304, 131072, 262144, 524288}) {
    cases.push_back(make_case(seq_len, 3, 4, seq_len / 64));
  }
  cases.push_back(make_case(32768, 3, 4, 512, Scorer::kDilated));
  cases.push_back(make_case(98304, 3, 2, 1536));
  cases.push_back(make_case(98304, 3, 4, 1536, Scorer::kDilated));
  cases.push_back(make_case(98304, 3, 4, 1536, Scorer::kGla));
  cases.push_back(make_case(1048576, 4, 4, 4096));
  return cases;
}

std::vector<AttentionCase> cases_by_length(const BenchOptions& options) {
  std::vector<AttentionCase> cases;
  for (const int64_t seq_len : options.seq_lens) {
    cases.push_back({seq_len, options.selection, options.score});
    if (options.selection.topk == 0) cases.back().selection.topk = seq_len / 64;
  }
  return cases;
}

void check_lengths(const BenchOptions& options) {
  LIGHTHOUSE_CHECK(!options.seq_lens.empty(), kOperation, ": no sequence length is given; give at least one");
  for (const int64_t seq_len : options.seq_lens) {
    LIGHTHOUSE_CHECK(seq_len >= 64 || (seq_len >= 1 && options.selection.topk >= 1), kOperation,
                     ": the sequence length is ", seq_len, "; it must be at least 64, or at least 1 with a given topk");
  }
}

}  // namespace

BenchOptions default_options(const std::string& device) {
  BenchOptions options;
  options.device = device;
  if (device != "cuda") return options;
  options.seq_lens = {8192, 16384, 32768, 65536, 98304, 131072};
  options.num_heads = 8;
  options.num_kv_heads = 8;
  options.head_dim = 128;
  options.dtype = "bfloat16";
  options.max_dense_len = 524288;
  return options;
}

at::ScalarType dtype_of(const BenchOptions& options) {
  if (options.dtype == "float32") return at::kFloat;
  if (options.dtype == "float64") return at::kDouble;
  if (options.dtype == "bfloat16") return at::kBFloat16;
  if (options.dtype == "float16") return at::kHalf;
  throw InvalidArgument(std::string(kOperation) + ": dtype is '" + options.dtype +
                        "'; it must be float32, float64, bfloat16 or float16");
}

void check_options(const BenchOptions& options) {
  dtype_of(options);
  LIGHTHOUSE_CHECK(options.device == "cpu" || options.device == "cuda", kOperation, ": device is '", options.device,
                   "'; it must be cpu or cuda");
  LIGHTHOUSE_CHECK(options.suite.empty() || options.suite == kPaper, kOperation, ": suite is '", options.suite,
                   "'; it must be ", kPaper);
  const Scorer scorer = options.score.scorer;
  LIGHTHOUSE_CHECK(scorer != Scorer::kRandom, kOperation, ": scorer is '", scorer,
                   "'; it must be norm, dilated or gla");
  check_lengths(options);
  LIGHTHOUSE_CHECK(options.batch >= 1 && options.num_kv_heads >= 1 && options.head_dim >= 1 && options.num_heads >= 1,
                   kOperation, ": batch ", options.batch, ", num_heads ", options.num_heads, ", num_kv_heads ",
                   options.num_kv_heads, ", head_dim ", options.head_dim, "; all must be at least 1");
  LIGHTHOUSE_CHECK(options.num_heads % options.num_kv_heads == 0, kOperation, ": num_heads ", options.num_heads,
                   " is not a multiple of num_kv_heads ", options.num_kv_heads);
  LIGHTHOUSE_CHECK(std::isfinite(options.seconds) && options.seconds > 0, kOperation, ": seconds is ", options.seconds,
                   "; it must be positive");
}

std::vector<AttentionCase> cases_of(const BenchOptions& options) {
  std::vector<AttentionCase> cases = options.suite == kPaper ? paper_cases() : cases_by_length(options);
  std::stable_sort(cases.begin(), cases.end(), [](const auto& a, const auto& b) { return a.seq_len < b.seq_len; });
  return cases;
}

bool has_paper_shape(const AttentionCase& attention_case) {
  const SelectionConfig& selection = attention_case.selection;
  return selection.num_levels == 3 && selection.pooling_factor == 4 && selection.topk == attention_case.seq_len / 64 &&
         attention_case.score.scorer == Scorer::kNorm;
}

}  // namespace lighthouse::bench

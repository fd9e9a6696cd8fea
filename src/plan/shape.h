// What of a configuration decides its cost: the layers as a stage of training runs them.
#pragma once

#include <cstdint>
#include <vector>

#include "config/run_config.h"
#include "parallel/context_plan.h"
#include "parallel/head_spans.h"
#include "parallel/mesh_shape.h"

namespace lighthouse {

/// The heads of each rank that shares a sequence.
HeadSpans head_spans_of(const RunConfig& config);

/// The same run on one rank.
RunConfig on_one_rank(RunConfig config);

/// The longest of some spans.
int64_t longest(const std::vector<Span>& spans);

/// The ranks of a configuration, parallel.data x parallel.context, as the first sees them; data = 0 counts as 1.
MeshShape mesh_of(const ParallelConfig& parallel);

/// One layer in one stage, for one sequence. A row with packed documents is counted as one document; short ones, which
/// are attended to in full, have more rows than that, up to N in all.
struct LayerShape {
  bool lighthouse;      ///< attends to S < N gathered rows; else to all N tokens
  int64_t rows;         ///< S, or N of a dense layer
  int64_t pairs;        ///< of a query and a key that it sees, n (n + 1) / 2 of n rows where all before are seen
  int64_t num_slots;    ///< entries of all levels, for one KV head; 0 of a dense layer
  int64_t num_coarse;   ///< entries of the coarsest level, for one KV head; 0 of a dense layer
  int64_t tokens_read;  ///< tokens under the rows finer than the coarsest level, which gather reads; 0 of a dense layer
  std::vector<Span> tokens_of_ranks;  ///< of the ranks that share a sequence: all tokens of one that is alone
  std::vector<Span> rows_of_ranks;    ///< the rows that each gathers, or its tokens
  AttendedBlocks attended;            ///< what each attends to

  // Of the rank that has most:
  int64_t own_rows() const { return longest(rows_of_ranks); }
  int64_t own_slots() const { return num_slots * longest(tokens_of_ranks) / tokens_of_ranks.back().end; }
  /// Of something that is `per_query` for each row of which it attends to queries, and `per_key` of keys and values.
  int64_t most_attended(int64_t per_query, int64_t per_key) const;
  int64_t own_queries() const { return most_attended(1, 0); }
};

/// The tokens of each rank that shares a sequence, as the decoder cuts it.
std::vector<Span> token_spans_of(const RunConfig& config);

/// All layers in stage 1 (`lighthouse`) or in stage 2. Throws InvalidArgument for a pyramid that cannot be made, and
/// for a sequence that parallel.context ranks cannot share.
std::vector<LayerShape> layer_shapes(const RunConfig& config, bool lighthouse);

/// Whether the bytes of a step fit int64 with room for sums of them; a machine that holds more does not exist.
bool is_countable(const RunConfig& config);

/// Elements of each parameter, in the order of the decoder.
std::vector<int64_t> parameter_sizes(const ModelConfig& model);
/// How many of them each rank owns, updates and has the moments of.
std::vector<int64_t> owned_parameters(const RunConfig& config);
/// The most that one of them owns.
int64_t most_owned_parameters(const RunConfig& config);

/// Sizes that formulas of this folder share; counts of elements, not bytes. Of the rank that has most tokens.
struct Sizes {
  /// Throws InvalidArgument where the configuration is not countable.
  explicit Sizes(const RunConfig& config);

  int64_t batch;                            ///< B, sequences of a micro-batch
  int64_t tokens;                           ///< B * N; of ranks that share sequences, B times what one of them has
  int64_t dim;                              ///< C
  int64_t ffn;                              ///< F
  int64_t q_channels;                       ///< H * D
  int64_t kv_channels;                      ///< H_kv * D
  int64_t qkv;                              ///< H * D + 2 H_kv * D, one packed row
  int64_t row_groups;                       ///< R, ranks that have the same heads and share their rows
  int64_t own_heads, own_kv_heads;          ///< that one rank attends to
  int64_t own_q_channels, own_kv_channels;  ///< of them
  int64_t vocab;                            ///< V
  int64_t element;                          ///< bytes of the compute dtype: 2 of bf16, 4 of fp32
};

/// Elements of one layer's weight matrices: qkv, output, gate and up, down.
int64_t layer_matrices(const Sizes& sizes);

}  // namespace lighthouse

// The configuration of a run: what a TOML file and the command line set. Plain values with their defaults; names of
// keys, limits and help texts are bound to them once, in schema.cpp.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "config/choices.h"

namespace lighthouse {

/// [model] Llama-3 style decoder.
struct ModelConfig {
  ModelFamily family = ModelFamily::kLlama;
  int64_t vocab_size = 256;  ///< bytes
  int64_t dim = 128;         ///< channels of the residual stream
  int64_t num_layers = 4;
  int64_t num_heads = 4;     ///< query heads
  int64_t num_kv_heads = 2;  ///< key/value heads; divides num_heads
  int64_t head_dim = 32;     ///< channels per head; even, for RoPE
  int64_t ffn_dim = 384;     ///< SwiGLU hidden channels
  double rope_theta = 500000.0;
  RopeScaling rope_scaling = RopeScaling::kNone;
  double rope_factor = 1;                         ///< by how much the context became longer
  int64_t rope_original_len = 0;                  ///< tokens of the context before; not of linear
  double rope_low_freq_factor = 1;                ///< llama3
  double rope_high_freq_factor = 4;               ///< llama3
  double rope_beta_fast = 32;                     ///< yarn
  double rope_beta_slow = 1;                      ///< yarn
  double rope_attention_factor = 0;               ///< yarn: of cosines and sines; 0: 0.1 ln(rope_factor) + 1
  std::vector<int64_t> layers_without_rope = {};  ///< smollm3
  double rms_norm_eps = 1e-5;
  bool tie_embeddings = false;  ///< the output head is the embedding matrix
  double init_std = 0.02;

  bool qk_norm() const { return family == ModelFamily::kQwen3; }   ///< RMSNorm over head_dim of q and k before RoPE
  bool qkv_bias() const { return family == ModelFamily::kQwen2; }  ///< q, k and v each add one
  bool operator==(const ModelConfig&) const = default;
};

/// [attention] of stage 1: Lighthouse attention, or a control in its place.
struct AttentionConfig {
  AttentionMethod method = AttentionMethod::kLighthouse;
  int64_t span = 0;  ///< tokens of short, where it divides training.seq_len, window and window_layers
  int64_t num_levels = 3;
  int64_t pooling_factor = 4;
  int64_t topk = 64;
  int64_t tile_topk = 128;
  bool cover_prefix = true;
  Scorer scorer = Scorer::kNorm;
  int64_t dilation = 4;
  std::vector<int64_t>
      full_attention_layers;            ///< layers that are dense in stage 1 too; the paper keeps {0, 1, 28, 29} of 30
  std::vector<int64_t> window_layers;   ///< layers of method lighthouse that attend to the latest `span` tokens instead
  std::vector<int64_t> topk_per_layer;  ///< empty, or one k for each layer instead of topk
  bool operator==(const AttentionConfig&) const = default;
};

/// [training]
struct TrainingConfig {
  int64_t steps = 400;                                  ///< optimizer steps of both stages together
  int64_t lighthouse_steps = 300;                       ///< steps of stage 1; the rest is dense
  int64_t seq_len = 4096;                               ///< tokens per sequence
  int64_t batch_size = 1;                               ///< sequences per micro-batch
  int64_t gradient_accumulation = 1;                    ///< micro-batches per optimizer step, of all processes together
  Accumulation accumulation = Accumulation::kSequence;  ///< of a process
  int64_t seed = 1;                                     ///< of the initial weights
  std::string initial_weights;  ///< folder of a Hugging Face model to start from; empty: random weights
  InitialRope initial_rope = InitialRope::kKept;  ///< changed: model.rope_* need not be the folder's
  Precision precision = Precision::kFp32;
  DeviceChoice device = DeviceChoice::kAuto;
  int64_t threads = 0;  ///< CPU threads; 0: one per core
  Recompute recompute = Recompute::kNone;
  int64_t recompute_layers = 1;    ///< recompute = full: layers that one kept input serves
  bool offload = false;            ///< keep layer inputs in host memory; needs recompute = full
  int64_t offload_layers = 0;      ///< offload: of so many layers, the first; 0: of all
  bool offload_optimizer = false;  ///< keep the moments of AdamW in host memory
  bool offload_weights = false;    ///< and the fp32 matrices; needs offload_optimizer and bf16
  bool deterministic = false;      ///< repeat the bits of a run on a GPU too, at a price in attention
  bool operator==(const TrainingConfig&) const = default;
};

/// [parallel] The processes of a run: data * context of them.
struct ParallelConfig {
  int64_t data = 0;       ///< groups that micro-batches are dealt to; 0: as many as there are processes for
  int64_t context = 1;    ///< processes that share each sequence
  int64_t timeout = 600;  ///< seconds that a process waits for the others
  bool operator==(const ParallelConfig&) const = default;
};

/// [optimizer] AdamW and its learning-rate schedule, which runs through both stages.
struct OptimizerConfig {
  double learning_rate = 2e-3;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;  ///< on matrices; norms are not decayed
  int64_t warmup_steps = 20;  ///< linear from 0
  Schedule schedule = Schedule::kCosine;
  double min_learning_rate_ratio = 0.1;  ///< of learning_rate, at the last step
  int64_t decay_steps = 0;               ///< wsd: length of the final linear decay; 0: a tenth of steps
  double clip_norm = 1.0;                ///< of the global gradient; 0: no clipping
  bool operator==(const OptimizerConfig&) const = default;
};

/// [data]
struct DataConfig {
  std::string path;                  ///< text file, folder, Megatron prefix (PATH.bin + PATH.idx), or NAME.ds
  std::vector<std::string> mixture;  ///< "PATH=WEIGHT" each: several corpora in the place of `path`
  CorpusFormat format = CorpusFormat::kAuto;
  std::vector<std::string> extensions;  ///< folders: file endings to read, as ".h"; empty: every file
  Packing packing = Packing::kChunks;
  double validation_fraction = 0.02;  ///< share of the tokens, from the end, kept for validation
  std::string validation_path;        ///< a corpus of its own instead of validation_fraction
  int64_t seed = 1;                   ///< of the shuffling
  bool operator==(const DataConfig&) const = default;
};

/// [validation] always with dense attention; in stage 1 also with Lighthouse attention.
struct ValidationConfig {
  int64_t interval = 50;  ///< steps; 0: only at the end
  int64_t sequences = 4;  ///< how many validation sequences are read each time
  bool operator==(const ValidationConfig&) const = default;
};

/// [checkpoint]
struct CheckpointConfig {
  int64_t interval = 50;     ///< steps; 0: only at the end and on a signal
  int64_t keep = 2;          ///< the newest `keep` checkpoints stay
  bool asynchronous = true;  ///< written from a copy in host memory while training goes on
  bool operator==(const CheckpointConfig&) const = default;
};

/// [logging]
struct LoggingConfig {
  std::string run_dir = "runs/default";  ///< metrics.jsonl, TensorBoard events, checkpoints, config.toml
  int64_t interval = 1;                  ///< steps between lines of metrics.jsonl
  int64_t timing_interval = 10;          ///< steps between those whose time is measured by part; 0: never
  bool tensorboard = true;
  int64_t sample_tokens = 256;  ///< length of the text sampled at the end; 0: none
  bool operator==(const LoggingConfig&) const = default;
};

struct RunConfig {
  ModelConfig model;
  AttentionConfig attention;
  TrainingConfig training;
  ParallelConfig parallel;
  OptimizerConfig optimizer;
  DataConfig data;
  ValidationConfig validation;
  CheckpointConfig checkpoint;
  LoggingConfig logging;
  bool operator==(const RunConfig&) const = default;
};

}  // namespace lighthouse

// The CUDA kernels of this layer, on raw pointers. All pointers are of device memory at multiples of 16 bytes; T is
// fp32 or bf16 (`dtype`); rows are contiguous and hold channels in multiples of 8; no size is 0. Sums run in fp32,
// results are rounded once. They neither allocate, synchronise nor copy; errors of a launch throw CudaError. The
// formulas are those of the headers beside this one, which check the arguments.
#pragma once

#include <cstdint>

#include "lighthouse/device_plan.h"
#include "lighthouse/dtype.h"
#include "lighthouse/strided_view.h"

namespace lighthouse::nn {

/// A row is read once and stays in registers up to 8192 channels; longer ones are read twice.
struct AddNormParams {
  const void* x;        ///< [rows, C] T
  const void* update;   ///< [rows, C] T, or null
  const float* weight;  ///< [C]
  void* sum;            ///< out [rows, C] T, or null without update
  void* normed;         ///< out [rows, C] T
  float* inverse_rms;   ///< out [rows]
  DType dtype;
  int64_t rows, channels;
  float eps;
};
void add_rms_norm(const AddNormParams& params, CudaStream stream);

struct NormBackwardParams {
  void* grad;                ///< [rows, C] T: scaled_grad, then dx
  const void* x;             ///< [rows, C] T
  const void* residual;      ///< [rows, C] T, or null
  const float* weight;       ///< [C]
  const float* inverse_rms;  ///< [rows]
  DType dtype;
  int64_t rows, channels;
};
void rms_norm_backward(const NormBackwardParams& params, CudaStream stream);

struct SplitNormParams {
  float* dmatrix;       ///< [out, C], scaled in place
  const void* matrix;   ///< [out, C] T
  const float* weight;  ///< [C]
  float* partial;       ///< scratch [split_norm_chunks(out, C), C]
  float* dnorm;         ///< out [C]
  DType dtype;
  int64_t out, channels;
};
int64_t split_norm_chunks(int64_t out, int64_t channels);
void split_norm_gradient(const SplitNormParams& params, CudaStream stream);

/// head_dim is a multiple of 16.
struct RotateParams {
  void* heads;             ///< [B, N, num_heads, D] T, the first num_rotated heads in place
  const float *cos, *sin;  ///< [N, D/2]
  DType dtype;
  int64_t batch, seq_len, num_heads, num_rotated, head_dim;
};
void rotate_heads(const RotateParams& params, CudaStream stream);

/// head_dim is a multiple of 16; every row of a view starts at a multiple of 16 bytes.
struct PackHeadsParams {
  ConstView q;               ///< [B, N, H, D] T
  ConstView k, v;            ///< [B, N, H_kv, D] T
  const float *cos, *sin;    ///< [N, D/2], or null
  const float* inverse_rms;  ///< [B * N]
  void* packed;              ///< out [B, N, H + 2 * H_kv, D] T
  DType dtype;
  int64_t batch, seq_len, num_heads, num_kv_heads, head_dim;
};
void pack_head_gradients(const PackHeadsParams& params, CudaStream stream);

struct SwigluParams {
  const void* gate_up;  ///< [rows, 2F] T
  void* out;            ///< out [rows, F] T
  DType dtype;
  int64_t rows, ffn_dim;
};
void swiglu(const SwigluParams& params, CudaStream stream);

struct SwigluBackwardParams {
  void* gate_up;             ///< [rows, 2F] T, then its gradient
  void* grad;                ///< [rows, F] T, then the result of swiglu
  const float* inverse_rms;  ///< [rows]
  DType dtype;
  int64_t rows, ffn_dim;
};
void swiglu_backward(const SwigluBackwardParams& params, CudaStream stream);

/// A row of up to 1024 logits stays in the registers of a warp; a longer one is read twice by a block.
struct CrossEntropyParams {
  void* logits;            ///< [rows, V] T; overwritten where scale is not null
  const int64_t* targets;  ///< [rows]
  const float* scale;      ///< one number, or null: losses only
  float* losses;           ///< out [rows]
  DType dtype;
  int64_t rows, vocab;
  int64_t ignored_target;
};
void cross_entropy(const CrossEntropyParams& params, CudaStream stream);

}  // namespace lighthouse::nn

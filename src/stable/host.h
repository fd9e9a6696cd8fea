// What the Python package asks about before anything runs: C functions, called through ctypes. They touch no tensor, so
// they need no dispatcher, and a graph that is traced may call them.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

/// What a plan follows from.
typedef struct {
  const char* operation;      ///< the name that messages begin with
  int64_t seq_len;            ///< N, of a part of a row its own
  const int64_t* layout;      ///< as the operators take it (layout.h)
  int64_t layout_size;        ///< 4, or 7 of a part of a row
  const int64_t* cu_seqlens;  ///< [num_offsets], of the whole row; null for an unpacked one
  int64_t num_offsets;
} lighthouse_row;

// Each returns 0; or 1 and a message in error[0, error_size) where an argument is wrong.

/// Sections (iii) and "Packed documents". Writes sizes[0] = gathered_len, sizes[1] = num_slots, and the rows of
/// document i to num_rows[i] if that is not null.
int lighthouse_plan(const lighthouse_row* row, int64_t* sizes, int64_t* num_rows, char* error, int64_t error_size);

/// Where ranks that share a row are cut (parallel/context_plan.h): the first token of each, and the end, to
/// token_offsets[num_ranks + 1].
int lighthouse_token_offsets(const lighthouse_row* row, int64_t num_ranks, int64_t* token_offsets, char* error,
                             int64_t error_size);

/// Of rank `rank`, where the ranks own the tokens between token_offsets[num_ranks + 1]. Writes the rows of each
/// likewise to row_offsets[num_ranks + 1], and to sizes[5]: the rank's first tile and the one behind its last, whether
/// rows of the rank before reach its tokens, tokens of the rank after that its rows reach, F - 1.
int lighthouse_context_plan(const lighthouse_row* row, int64_t num_ranks, int64_t rank, const int64_t* token_offsets,
                            int64_t* row_offsets, int64_t* sizes, char* error, int64_t error_size);

/// The version of CUDA that the kernels were compiled with, as CUDART_VERSION; 0 without kernels.
int lighthouse_cuda_version();
/// Of the driver, as cudaDriverGetVersion; 0 where there is none.
int lighthouse_driver_version();
/// "80-real,90a-real", as CMAKE_CUDA_ARCHITECTURES but with commas; empty without kernels.
const char* lighthouse_cuda_architectures();
/// Of this project, and of the torch whose headers were used.
const char* lighthouse_version();
const char* lighthouse_torch_version();
/// Empty, or what this processor lacks (require_cpu_features).
const char* lighthouse_cpu_error();

}  // extern "C"
#pragma GCC visibility pop

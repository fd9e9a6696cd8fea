// What the Python package asks about before anything runs: C functions, called through ctypes. They touch no tensor, so
// they need no dispatcher, and a graph that is traced may call them.
#pragma once

#include <cstdint>

#pragma GCC visibility push(default)
extern "C" {

/// Sections (iii) and "Packed documents". `layout` = {num_levels, pooling_factor, topk, tile_topk}; cu_seqlens
/// [num_offsets] or null for an unpacked row. Writes sizes[0] = gathered_len, sizes[1] = num_slots, and the rows of
/// document i to num_rows[i] if that is not null. Returns 0; or 1 and a message in error[0, error_size) where an
/// argument is wrong.
int lighthouse_plan(const char* operation, int64_t seq_len, const int64_t* layout, const int64_t* cu_seqlens,
                    int64_t num_offsets, int64_t* sizes, int64_t* num_rows, char* error, int64_t error_size);

/// The version of CUDA that the kernels were compiled with, as CUDART_VERSION; 0 without kernels.
int lighthouse_cuda_version();
/// Of the driver, as cudaDriverGetVersion; 0 where there is none.
int lighthouse_driver_version();
/// "90a-real", ";"-separated, as CMAKE_CUDA_ARCHITECTURES; empty without kernels.
const char* lighthouse_cuda_architectures();
/// Of this project, and of the torch whose headers were used.
const char* lighthouse_version();
const char* lighthouse_torch_version();
/// Empty, or what this processor lacks (require_cpu_features).
const char* lighthouse_cpu_error();

}  // extern "C"
#pragma GCC visibility pop

// Warp-level matrix products of bf16 and fp16 with fp32 sums: m16n8k16, ldmatrix and asynchronous copies (sm_80 and
// on). With g = lane / 4 and t = lane % 4, the fragments of a lane are
//   A [16, 16]: registers 0..3 hold rows g, g + 8, g, g + 8 and the column pairs 2t, 2t, 2t + 8, 2t + 8
//   B [16, 8]:  registers 0, 1 hold the row pairs 2t, 2t + 8 of column g
//   C [16, 8]:  elements 0..3 are (g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)
// so a C of X^T, its pairs rounded, is a B of X.
#pragma once

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <cstdint>
#include <cstring>
#include <type_traits>

namespace lighthouse {

/// threadIdx.x % 32 of a one-dimensional block, read anew each time: no register holds it, or what follows from it,
/// through a loop.
__device__ __forceinline__ int volatile_lane() {
  int lane;
  asm volatile("mov.u32 %0, %%laneid;" : "=r"(lane));
  return lane;
}

__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

/// Four 8x8 matrices; lane l names row l % 8 of matrix l / 8. A lane gets the pair (g, 2t), (g, 2t + 1) of each, or of
/// its transpose.
template <bool kTranspose>
__device__ __forceinline__ void load_matrices(uint32_t (&x)[4], const void* row) {
  if constexpr (kTranspose) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
  } else {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(x[0]), "=r"(x[1]), "=r"(x[2]), "=r"(x[3])
                 : "r"(shared_address(row))
                 : "memory");
  }
}

/// c += a b.
template <typename T>
__device__ __forceinline__ void multiply_add(float (&c)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  } else {
    static_assert(std::is_same_v<T, __nv_bfloat16>);
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
        "{%0, %1, %2, %3};"
        : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b0), "r"(b1));
  }
}

/// Copies 16 bytes to shared memory past the L1 cache; writes zeros and reads nothing unless `real`.
__device__ __forceinline__ void copy_async_16(void* shared, const void* global, bool real) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(real ? 16 : 0)
               : "memory");
}
/// The same for one float, through the L1 cache.
__device__ __forceinline__ void copy_async_4(float* shared, const float* global, bool real) {
  asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(shared_address(shared)), "l"(global),
               "r"(real ? 4 : 0)
               : "memory");
}
/// Waits for all of this thread's copies.
__device__ __forceinline__ void wait_for_copies() { asm volatile("cp.async.wait_all;" ::: "memory"); }

/// 2^x to 2 units in the last place; 0 below 2^-126.
__device__ __forceinline__ float fast_exp2(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}

template <typename T>
using Pair = std::conditional_t<std::is_same_v<T, __half>, __half2, __nv_bfloat162>;

/// `low` in the lower half.
template <typename T>
__device__ __forceinline__ uint32_t pack(float low, float high) {
  Pair<T> pair;
  if constexpr (std::is_same_v<T, __half>) {
    pair = __floats2half2_rn(low, high);
  } else {
    pair = __floats2bfloat162_rn(low, high);
  }
  uint32_t bits;
  memcpy(&bits, &pair, sizeof(bits));
  return bits;
}
template <typename T>
__device__ __forceinline__ float2 unpack(uint32_t bits) {
  Pair<T> pair;
  memcpy(&pair, &bits, sizeof(bits));
  if constexpr (std::is_same_v<T, __half>) {
    return __half22float2(pair);
  } else {
    return __bfloat1622float2(pair);
  }
}

/// sum + 0 * x on both halves: from 0, sums stay 0 until an x is NaN or infinite.
template <typename T>
__device__ __forceinline__ void probe_finite(uint32_t& sum, uint32_t x) {
  if constexpr (std::is_same_v<T, __half>) {
    asm("fma.rn.f16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(0));
  } else {
    asm("fma.rn.bf16x2 %0, %1, %2, %0;" : "+r"(sum) : "r"(x), "r"(0));
  }
}

/// The bits of the exponent of one element: all set in NaN and infinity.
template <typename T>
inline constexpr uint32_t kExponentBits = std::is_same_v<T, __half> ? 0x7C00 : 0x7F80;

}  // namespace lighthouse

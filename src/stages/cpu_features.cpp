#include "lighthouse/cpu_features.h"

#if defined(__x86_64__)
#include <cpuid.h>
#endif

#include <stdexcept>
#include <string>

#include "stages/compiled_features.h"

namespace lighthouse {
namespace {

#if defined(__x86_64__)
/// clang 14 has no has_f16c().
bool has_f16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & bit_F16C) != 0;
}
#endif

}  // namespace

void require_cpu_features() {
#if defined(__x86_64__)
  std::string missing;
  const auto require = [&](CompiledFeature feature, bool present, const char* name) {
    if ((compiled_features() & feature) == 0 || present) return;
    if (!missing.empty()) missing += ", ";
    missing += name;
  };
  __builtin_cpu_init();
  require(kSse42, __builtin_cpu_supports("sse4.2"), "SSE4.2");
  require(kAvx, __builtin_cpu_supports("avx"), "AVX");
  require(kAvx2, __builtin_cpu_supports("avx2"), "AVX2");
  require(kFma, __builtin_cpu_supports("fma"), "FMA");
  require(kBmi2, __builtin_cpu_supports("bmi2"), "BMI2");
  require(kF16c, has_f16c(), "F16C");
  require(kAvx512f, __builtin_cpu_supports("avx512f"), "AVX-512 F");
  require(kAvx512bw, __builtin_cpu_supports("avx512bw"), "AVX-512 BW");
  require(kAvx512dq, __builtin_cpu_supports("avx512dq"), "AVX-512 DQ");
  require(kAvx512vl, __builtin_cpu_supports("avx512vl"), "AVX-512 VL");
  if (missing.empty()) return;
  throw std::runtime_error("lighthouse was compiled for x86-64 processors with instructions that this one lacks: " +
                           missing + "; build it here with -DLIGHTHOUSE_CPU_ARCH=native or x86-64-v2");
#endif
}

}  // namespace lighthouse

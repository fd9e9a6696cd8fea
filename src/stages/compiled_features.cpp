#include "stages/compiled_features.h"

namespace lighthouse {

// Compiled with the options of the stages, whose macros say what the compiler may use.
unsigned compiled_features() {
  return 0
#ifdef __SSE4_2__
         | kSse42
#endif
#ifdef __AVX__
         | kAvx
#endif
#ifdef __AVX2__
         | kAvx2
#endif
#ifdef __FMA__
         | kFma
#endif
#ifdef __BMI2__
         | kBmi2
#endif
#ifdef __F16C__
         | kF16c
#endif
#ifdef __AVX512F__
         | kAvx512f
#endif
#ifdef __AVX512BW__
         | kAvx512bw
#endif
#ifdef __AVX512DQ__
         | kAvx512dq
#endif
#ifdef __AVX512VL__
         | kAvx512vl
#endif
      ;
}

}  // namespace lighthouse

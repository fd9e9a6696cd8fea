// Whether this processor can run what the CPU stages were compiled for (LIGHTHOUSE_CPU_ARCH).
#pragma once

namespace lighthouse {

/// Throws std::runtime_error, naming what is missing and what would do, unless the processor has every instruction set
/// that the CPU stages may use. To be called before any of them, else an older processor ends the program at the first
/// instruction it does not know.
void require_cpu_features();

}  // namespace lighthouse

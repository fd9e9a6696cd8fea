// torch/csrc/distributed/c10d/ProcessGroupGloo.hpp includes Gloo's headers, which the torch wheel does not have; the
// code is in libtorch_cpu. These files declare what that header names, so that it compiles. Nothing here may be
// constructed or called: torch makes and passes such objects by pointer.
#pragma once
#include <gloo/context.h>

// Weights from files and checkpoints into a decoder.
#pragma once

#include <string>

#include "model/decoder.h"

namespace lighthouse {

/// Copies `tensors`, as saved in a checkpoint, into the decoder's parameters and buffers. Throws InvalidArgument naming
/// `source` and the tensor when one is missing, unknown, given twice, not floating-point or of another shape; then no
/// weight has changed.
void load_parameters(Decoder& decoder, const NamedTensors& tensors, const std::string& source = "load_parameters");

}  // namespace lighthouse

// What scores the tokens.
#pragma once

#include "lighthouse/words.h"

namespace lighthouse {

/// Section (ii).
enum class Scorer {
  kNorm,
  kDilated,
  kGla,
  kRandom,  ///< knows nothing of the tokens: a control of the trainer's, and none of the operators'
};
constexpr std::array<std::string_view, 4> words_of(Scorer /*type*/) { return {"norm", "dilated", "gla", "random"}; }

}  // namespace lighthouse

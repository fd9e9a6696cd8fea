#include "eval/validation.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/grad_mode.h>

#include <algorithm>

#include "eval/batch.h"
#include "lighthouse/check.h"

namespace lighthouse {

ValidationLoss validation_loss(const Decoder& decoder, const SequenceLoader& loader, int64_t num_sequences,
                               AttentionMode mode) {
  LIGHTHOUSE_CHECK(num_sequences >= 1, "validation: ", num_sequences, " sequences; must be at least 1");
  const int64_t available = loader.num_validation_sequences();
  LIGHTHOUSE_CHECK(available >= 1,
                   "validation: the corpus has no validation sequences; set data.validation_fraction or "
                   "data.validation_path");
  const at::NoGradGuard no_grad;
  ValidationLoss result;
  double sum = 0;  // nats of all targets
  for (; result.num_sequences < std::min(num_sequences, available); ++result.num_sequences) {
    const Sequence sequence = loader.validation_sequence(result.num_sequences);
    const Batch batch = make_batch({&sequence, 1}, decoder.device());
    const at::Tensor loss = decoder.loss(batch.tokens, batch.targets, mode, batch.cu_seqlens);
    sum += loss.item<double>() * static_cast<double>(batch.num_targets);
    result.num_targets += batch.num_targets;
  }
  result.loss = sum / static_cast<double>(std::max<int64_t>(result.num_targets, 1));
  return result;
}

}  // namespace lighthouse

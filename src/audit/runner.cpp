#include "audit/runner.h"

#include <memory>
#include <utility>

#include "model/batch.h"

namespace lighthouse {
namespace {

Outputs outputs(const Decoder& decoder, const at::Tensor& hidden, const Batch& batch) {
  const at::Tensor losses = decoder.head_losses(hidden, batch.targets);
  return {hidden.select(0, 0), losses.select(0, 0)};
}

}  // namespace

RunnerFor free_selection(const Decoder& decoder, AttentionMode mode) {
  return [&decoder, mode](const Sequence& /*original*/) -> Runner {
    return [&decoder, mode](const Sequence& sequence) {
      const Batch batch = make_batch({&sequence, 1}, decoder.device());
      return outputs(decoder, decoder.hidden_states(batch.tokens, mode, batch.cu_seqlens), batch);
    };
  };
}

RunnerFor held_selection(const Decoder& decoder) {
  return [&decoder](const Sequence& original) -> Runner {
    const Batch recorded = make_batch({&original, 1}, decoder.device());
    SelectionTape tape;
    decoder.hidden_states(recorded.tokens, AttentionMode::kLighthouse, recorded.cu_seqlens, &tape);
    return [&decoder, tape = std::move(tape)](const Sequence& sequence) {
      const Batch batch = make_batch({&sequence, 1}, decoder.device());
      return outputs(decoder, decoder.hidden_states(batch.tokens, tape, batch.cu_seqlens), batch);
    };
  };
}

}  // namespace lighthouse

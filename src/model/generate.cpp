#include "model/generate.h"

#include <ATen/ops/empty.h>

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "lighthouse/check.h"
#include "model/kv_cache.h"
#include "model/random.h"
#include "model/sample.h"

namespace lighthouse {
namespace {

void check_arguments(std::span<const int64_t> prompt, const GenerateOptions& options, int64_t vocab_size) {
  LIGHTHOUSE_CHECK(!prompt.empty(), "generate: the prompt is empty; give at least one token to go on from");
  for (size_t position = 0; position < prompt.size(); ++position) {
    LIGHTHOUSE_CHECK(prompt[position] >= 0 && prompt[position] < vocab_size, "generate: token ", prompt[position],
                     " at position ", position, " of the prompt; the model's tokens are 0 to ", vocab_size - 1);
  }
  LIGHTHOUSE_CHECK(options.max_tokens >= 0, "generate: max_tokens ", options.max_tokens, " is negative");
  if (options.greedy) return;
  LIGHTHOUSE_CHECK(std::isfinite(options.temperature) && options.temperature > 0, "generate: temperature ",
                   options.temperature, " must be greater than 0; for the likeliest token every time choose greedy");
  LIGHTHOUSE_CHECK(options.top_p > 0 && options.top_p <= 1, "generate: top_p ", options.top_p,
                   " must be greater than 0 and at most 1");
}

int64_t next_token(std::span<const float> logits, const GenerateOptions& options, uint64_t stream, int64_t index) {
  if (!std::all_of(logits.begin(), logits.end(), [](float logit) { return std::isfinite(logit); })) {
    throw std::runtime_error("generate: the model's logits are not finite; its training has diverged");
  }
  if (options.greedy) return likeliest_token(logits);
  return sample_token(logits, options.temperature, options.top_p, random_uniform(stream, static_cast<uint64_t>(index)));
}

at::Tensor as_batch(std::span<const int64_t> tokens, at::Device device) {
  at::Tensor batch = at::empty({1, static_cast<int64_t>(tokens.size())}, at::kLong);
  std::copy(tokens.begin(), tokens.end(), batch.mutable_data_ptr<int64_t>());
  return batch.to(device);
}

}  // namespace

std::vector<int64_t> generate(const Decoder& decoder, std::span<const int64_t> prompt, const GenerateOptions& options,
                              const OnToken& on_token) {
  const int64_t vocab_size = decoder.config().vocab_size;
  check_arguments(prompt, options, vocab_size);
  const uint64_t stream = random_stream(options.seed, "generate");
  KvCache cache;
  std::vector<int64_t> generated;
  at::Tensor tokens = as_batch(prompt, decoder.device());
  for (int64_t index = 0; index < options.max_tokens; ++index) {
    const at::Tensor logits = decoder.decode(tokens, cache).to(at::kCPU, at::kFloat).contiguous();  // [1, vocab]
    const int64_t token =
        next_token({logits.const_data_ptr<float>(), static_cast<size_t>(vocab_size)}, options, stream, index);
    generated.push_back(token);
    if (on_token && !on_token(token)) break;
    tokens = as_batch({&token, 1}, decoder.device());
  }
  return generated;
}

}  // namespace lighthouse

// What tests/python/test_export.py compares transformers with: a random model, exported, and its own outputs.
//
//   export_fixture make FOLDER DTYPE [KEY=VALUE]...  writes FOLDER/exported and FOLDER/outputs.safetensors; the keys
//   are
//                                                    those of the configuration, DTYPE is fp32 or bf16
//   export_fixture load FOLDER OUTPUTS [EXPORTED]    writes the outputs of the transformers model in FOLDER, and
//   exports
//                                                    it again
//
// Outputs: tokens [2, 33] int64, logits [2, 33, vocab] fp32, greedy [20] int64: what follows the first row of tokens;
// frequencies [D/2] fp32 of the heads in a row of tokens, attention_factor [1] fp32 beside them.
#include <ATen/core/grad_mode.h>
#include <ATen/ops/empty.h>

#include <cstdio>
#include <exception>

#include "config/schema.h"
#include "io/safetensors.h"
#include "model/export.h"
#include "model/generate.h"
#include "model/import.h"
#include "model/random.h"
#include "model/rope_frequencies.h"

namespace lighthouse {
namespace {

at::Tensor random_tokens(int64_t vocab_size) {
  at::Tensor tokens = at::empty({2, 33}, at::kLong);
  auto* const values = tokens.mutable_data_ptr<int64_t>();
  const uint64_t stream = random_stream(1, "tokens");
  for (int64_t i = 0; i < tokens.numel(); ++i) {
    values[i] = static_cast<int64_t>(random_bits(stream, static_cast<uint64_t>(i)) % static_cast<uint64_t>(vocab_size));
  }
  return tokens;
}

/// Norm weights are one in a fresh model, so that a wrong one would not show.
void spread_norms(const Decoder& decoder) {
  const at::NoGradGuard no_grad;
  for (const auto& [name, tensor] : decoder.parameters()) {
    if (tensor.dim() != 1) continue;
    const uint64_t stream = random_stream(1, name);
    auto* const values = tensor.mutable_data_ptr<float>();
    for (int64_t i = 0; i < tensor.numel(); ++i) {
      values[i] = static_cast<float>(0.5 + random_uniform(stream, static_cast<uint64_t>(i)));
    }
  }
}

template <typename T>
RawTensor raw(const std::string& name, const char* dtype, std::vector<int64_t> shape, std::span<const T> values) {
  return {name, dtype, std::move(shape), std::as_bytes(values)};
}

void write_outputs(const Decoder& decoder, const std::filesystem::path& path) {
  const at::NoGradGuard no_grad;
  const at::Tensor tokens = random_tokens(decoder.config().vocab_size);
  const at::Tensor logits = decoder.forward(tokens, AttentionMode::kDense).contiguous();
  const std::span<const int64_t> token_values(tokens.const_data_ptr<int64_t>(), static_cast<size_t>(tokens.numel()));
  const std::span<const float> logit_values(logits.const_data_ptr<float>(), static_cast<size_t>(logits.numel()));
  const RopeFrequencies frequencies = rope_frequencies(decoder.config(), tokens.size(1), at::kCPU);
  const std::span<const float> frequency_values(frequencies.inverse.const_data_ptr<float>(),
                                                static_cast<size_t>(frequencies.inverse.numel()));
  const auto attention_factor = static_cast<float>(frequencies.attention_factor);
  std::vector<int64_t> greedy;
  if (decoder.config().rope_scaling !=
      RopeScaling::kDynamic) {  // which generates no further than to its original length
    greedy =
        generate(decoder, token_values.first(static_cast<size_t>(tokens.size(1))), {.max_tokens = 20, .greedy = true});
  }
  write_safetensors(path,
                    {raw("tokens", "I64", tokens.sizes().vec(), token_values),
                     raw("logits", "F32", logits.sizes().vec(), logit_values),
                     raw("frequencies", "F32", frequencies.inverse.sizes().vec(), frequency_values),
                     raw("attention_factor", "F32", {1}, std::span(&attention_factor, 1)),
                     raw("greedy", "I64", {static_cast<int64_t>(greedy.size())}, std::span<const int64_t>(greedy))});
}

int run(const std::vector<std::string>& arguments) {
  if (arguments.size() >= 3 && arguments[0] == "load") {
    const Decoder decoder = load_huggingface(arguments[1]);
    if (arguments.size() > 3) export_huggingface(decoder, arguments[3], {.origin = arguments[1]});
    write_outputs(decoder, arguments[2]);
    return 0;
  }
  if (arguments.size() < 3 || arguments[0] != "make") return 2;
  RunConfig config;
  for (size_t i = 3; i < arguments.size(); ++i) {
    const size_t equals = arguments[i].find('=');
    apply_override(config, arguments[i].substr(0, equals), arguments[i].substr(equals + 1));
  }
  const std::filesystem::path folder = arguments[1];
  const Decoder decoder(config.model, config.attention, 7);
  spread_norms(decoder);
  export_huggingface(decoder, folder / "exported", {.dtype = arguments[2] == "bf16" ? at::kBFloat16 : at::kFloat});
  write_outputs(decoder, folder / "outputs.safetensors");
  return 0;
}

}  // namespace
}  // namespace lighthouse

int main(int argc, char** argv) {
  try {
    return lighthouse::run({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::fprintf(stderr, "export_fixture: %s\n", error.what());
    return 1;
  }
}

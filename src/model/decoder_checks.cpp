#include "model/decoder_checks.h"

#include <algorithm>

#include "config/schema.h"
#include "lighthouse/check.h"

namespace lighthouse {

void check_decoder(const ModelConfig& model, const AttentionConfig& attention, const Execution& execution) {
  RunConfig config;
  config.model = model;
  config.attention = attention;
  if (attention.span > 0) config.training.seq_len = attention.span;  // begin_pass knows the lengths there are
  try {
    validate(config);
  } catch (const ConfigError& error) {
    throw InvalidArgument(detail::concat("Decoder: ", error.what()));
  }
  const at::ScalarType dtype = execution.dtype;
  LIGHTHOUSE_CHECK(dtype == at::kFloat || dtype == at::kBFloat16 || dtype == at::kDouble, "Decoder: compute dtype ",
                   c10::toString(dtype), " must be float, bfloat16 or double");
  LIGHTHOUSE_CHECK(execution.offload_layers == 0 || execution.recompute == Recompute::kFull,
                   "Decoder: offload keeps layer inputs in host memory; it needs recompute = full, which keeps nothing "
                   "else");
  LIGHTHOUSE_CHECK(execution.recompute_layers >= 1, "Decoder: recompute_layers = ", execution.recompute_layers,
                   " must be at least 1");
  LIGHTHOUSE_CHECK(execution.weights == WeightPlace::kDevice || dtype == at::kBFloat16,
                   "Decoder: matrices on the host need compute dtype bfloat16, not ", c10::toString(dtype),
                   ", in which products read the parameters themselves");
}

void check_token_tensor(const at::Tensor& tokens, const char* name, at::Device device) {
  LIGHTHOUSE_CHECK(tokens.defined() && tokens.dim() == 2 && tokens.numel() > 0 && tokens.scalar_type() == at::kLong,
                   "Decoder: ", name, " must be int64 [B, N] with B and N of at least 1");
  LIGHTHOUSE_CHECK(tokens.device() == device, "Decoder: ", name, " are on ", tokens.device(), ", the model is on ",
                   device, "; move them");
}

void check_targets(const at::Tensor& targets, const at::Tensor& tokens, at::Device device) {
  check_token_tensor(targets, "targets", device);
  LIGHTHOUSE_CHECK(targets.sizes() == tokens.sizes(), "Decoder: targets ", targets.sizes(), " and tokens ",
                   tokens.sizes(), " must have the same shape");
}

void check_documents(std::span<const int64_t> cu_seqlens, const at::Tensor& tokens, int64_t row_len) {
  if (cu_seqlens.empty()) return;
  LIGHTHOUSE_CHECK(tokens.size(0) == 1, "Decoder: packed documents (cu_seqlens) need a batch of 1, not ",
                   tokens.size(0));
  LIGHTHOUSE_CHECK(cu_seqlens.front() == 0 && cu_seqlens.back() == row_len, "Decoder: cu_seqlens go from ",
                   cu_seqlens.front(), " to ", cu_seqlens.back(), "; they must go from 0 to the number of tokens, ",
                   row_len);
  LIGHTHOUSE_CHECK(std::is_sorted(cu_seqlens.begin(), cu_seqlens.end()), "Decoder: cu_seqlens must not decrease");
}

}  // namespace lighthouse

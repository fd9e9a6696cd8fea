#include "ops/window_attention.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/bucketize.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>

#include "lighthouse/check.h"
#include "ops/deterministic.h"
#include "ops/gathering.h"

namespace lighthouse::ops {
namespace {

constexpr int64_t kLeastBlock = 256;  // queries of one call of stock attention

bool has_flash(const at::Tensor& q) {
  const bool is_16_bit = q.scalar_type() == at::kBFloat16 || q.scalar_type() == at::kHalf;
  return q.is_cuda() && is_16_bit && q.size(3) % 8 == 0 && q.size(3) <= 256;
}

/// Offsets without documents of no token, and the length of the longest.
struct Documents {
  std::vector<int64_t> offsets;
  int64_t longest = 0;
};

Documents documents_of(at::IntArrayRef cu_seqlens) {
  Documents documents{{0}};
  for (const int64_t offset : cu_seqlens) {
    const int64_t length = offset - documents.offsets.back();
    if (length > 0) documents.offsets.push_back(offset);
    documents.longest = std::max(documents.longest, length);
  }
  return documents;
}

at::Tensor flash(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t span,
                 at::OptionalIntArrayRef cu_seqlens) {
  const auto attend = [&](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values,
                          const std::optional<at::Tensor>& offsets, int64_t longest) {
    return std::get<0>(at::_flash_attention_forward(queries, keys, values, offsets, offsets, longest, longest,
                                                    /*dropout_p=*/0.0, /*is_causal=*/true,
                                                    /*return_debug_mask=*/false, /*scale=*/std::nullopt,
                                                    /*window_size_left=*/span - 1, /*window_size_right=*/0));
  };
  if (!cu_seqlens) return attend(q, k, v, std::nullopt, q.size(1));
  const Documents documents = documents_of(*cu_seqlens);
  return attend(q.squeeze(0), k.squeeze(0), v.squeeze(0), offsets_like(q, documents.offsets), documents.longest)
      .unsqueeze(0);
}

/// A run of queries, and of the keys that one of them sees.
struct Block {
  int64_t first_key, first_query, end;
};

/// [queries, keys], whether a query sees a key.
at::Tensor window_mask(const at::Tensor& q, const Block& block, int64_t span, at::OptionalIntArrayRef cu_seqlens) {
  const auto options = q.options().dtype(at::kLong);
  const at::Tensor query = at::arange(block.first_query, block.end, options).unsqueeze(1);
  const at::Tensor key = at::arange(block.first_key, block.end, options);
  const at::Tensor distance = query - key;
  const at::Tensor in_window = distance.ge(0).logical_and(distance.lt(span));
  if (!cu_seqlens) return in_window;
  const auto document = [offsets = offsets_like(q, *cu_seqlens).to(at::kLong)](const at::Tensor& token) {
    return at::bucketize(token, offsets, /*out_int32=*/false, /*right=*/true);
  };
  return in_window.logical_and(document(query).eq(document(key)));
}

/// By blocks of queries, each with the keys of its windows.
at::Tensor masked(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t span,
                  at::OptionalIntArrayRef cu_seqlens) {
  const int64_t seq_len = q.size(1);
  const int64_t num_queries = std::max(span, kLeastBlock);
  std::vector<at::Tensor> outputs;
  for (int64_t begin = 0; begin < seq_len; begin += num_queries) {
    const Block block{std::max<int64_t>(begin - span + 1, 0), begin, std::min(begin + num_queries, seq_len)};
    const auto heads = [&](const at::Tensor& x, int64_t first) { return x.slice(1, first, block.end).transpose(1, 2); };
    outputs.push_back(at::scaled_dot_product_attention(heads(q, block.first_query), heads(k, block.first_key),
                                                       heads(v, block.first_key),
                                                       window_mask(q, block, span, cu_seqlens), /*dropout_p=*/0.0,
                                                       /*is_causal=*/false, /*scale=*/std::nullopt,
                                                       /*enable_gqa=*/q.size(2) != k.size(2))
                          .transpose(1, 2));
  }
  return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 1);
}

}  // namespace

at::Tensor window_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, int64_t span,
                            at::OptionalIntArrayRef cu_seqlens, bool deterministic) {
  LIGHTHOUSE_CHECK(span >= 1, "window attention: a window of ", span, " tokens must have at least 1");
  const InnerAttention attention = [&](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
    return (has_flash(queries) ? flash : masked)(queries, keys, values, span, cu_seqlens);
  };
  return deterministic && q.is_cuda() ? run_deterministic(attention, q, k, v) : attention(q, k, v);
}

}  // namespace lighthouse::ops

#include "ops/inner_attention.h"

#include <ATen/Context.h>
#include <ATen/ops/_efficient_attention_forward.h>
#include <ATen/ops/_flash_attention_forward.h>
#include <ATen/ops/cat.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/ones.h>
#include <ATen/ops/scaled_dot_product_attention.h>

#include <algorithm>
#include <cmath>

#include "ops/cudnn_attention.h"
#include "ops/cudnn_documents.h"
#include "ops/deterministic.h"
#include "ops/document_sizes.h"
#include "ops/gathering.h"
#include "ops/long_attention.h"
#include "ops/merged_attention.h"
#include "ops/stock_rules.h"

namespace lighthouse::ops {
namespace {

bool is_16_bit(const at::Tensor& x) { return x.scalar_type() == at::kBFloat16 || x.scalar_type() == at::kHalf; }

/// Keys or values [B, H_kv, S, D] as [B, H, S, D].
at::Tensor for_every_query_head(const at::Tensor& x, int64_t num_heads) {
  return x.unsqueeze(2)
      .expand({x.size(0), x.size(1), num_heads / x.size(1), x.size(2), x.size(3)})
      .reshape({x.size(0), num_heads, x.size(2), x.size(3)});
}

bool starts_aligned(const at::Tensor& x) { return reinterpret_cast<uintptr_t>(x.const_data_ptr()) % kLoadBytes == 0; }

/// Whether D is no multiple of 16 bytes, for kernels on CUDA.
bool takes_padding(const at::Tensor& x) {
  return x.is_cuda() && x.scalar_type() != at::kDouble &&
         missing_channels(x.size(3), static_cast<int64_t>(x.element_size())) != 0;
}

/// A copy where rows do not start at multiples of 16 bytes. fp64 has plain matrix products, which take all.
at::Tensor aligned(const at::Tensor& x) {
  if (x.scalar_type() == at::kDouble) return x;
  const bool fits = starts_aligned(x) && rows_start_aligned(x.strides(), static_cast<int64_t>(x.element_size()));
  return fits ? x : x.clone(at::MemoryFormat::Contiguous);  // contiguous() keeps strides of size 1
}

/// Heads as stock kernels on CUDA take them, with channels of zeros at the end where D is no multiple of 16 bytes.
at::Tensor acceptable(const at::Tensor& x) {
  if (!takes_padding(x)) return aligned(x);
  const int64_t missing = missing_channels(x.size(3), static_cast<int64_t>(x.element_size()));
  return aligned(at::constant_pad_nd(x, {0, missing}));
}

double scale_of(const at::Tensor& q, std::optional<double> softmax_scale) {
  return softmax_scale.value_or(1.0 / std::sqrt(static_cast<double>(q.size(3))));
}

/// The first row of every document that has rows, and the end.
std::vector<int64_t> row_offsets(const std::vector<int64_t>& num_rows) {
  std::vector<int64_t> offsets{0};
  for (const int64_t rows : num_rows) {
    if (rows > 0) offsets.push_back(offsets.back() + rows);
  }
  return offsets;
}

/// Rows of documents as a kernel for any number of them is told.
struct VarlenRows {
  VarlenRows(const at::Tensor& like, const std::vector<int64_t>& num_rows)
      : offsets(offsets_like(like, row_offsets(num_rows))),
        longest(*std::max_element(num_rows.begin(), num_rows.end())) {}
  at::Tensor offsets;
  int64_t longest;
};

/// Keys of documents whose queries are `num_rows`.
std::vector<int64_t> key_rows(std::vector<int64_t> num_rows, int64_t before) {
  num_rows.front() += before;
  return num_rows;
}

// Queries are the last ones of their documents: the last query sees all keys.

at::Tensor flash_varlen(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const VarlenRows& queries,
                        const VarlenRows& keys, double scale) {
  const auto by_row = [](const at::Tensor& x) { return x.squeeze(0).transpose(0, 1); };  // [S, H, D]
  const at::Tensor out = std::get<0>(at::_flash_attention_forward(
      by_row(q), by_row(k), by_row(v), queries.offsets, keys.offsets, queries.longest, keys.longest,
      /*dropout_p=*/0.0, /*is_causal=*/true, /*return_debug_mask=*/false, scale));
  return out.transpose(0, 1).unsqueeze(0);
}

at::Tensor efficient_varlen(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const VarlenRows& queries,
                            const VarlenRows& keys, double scale) {
  constexpr int64_t kCausalFromFirstKey = 1, kCausalFromLastKey = 2;
  const at::Tensor all_keys = for_every_query_head(k, q.size(1));
  const at::Tensor all_values = for_every_query_head(v, q.size(1));
  const at::Tensor out = std::get<0>(at::_efficient_attention_forward(
      q.transpose(1, 2), all_keys.transpose(1, 2), all_values.transpose(1, 2), /*bias=*/std::nullopt, queries.offsets,
      keys.offsets, queries.longest, keys.longest, /*dropout_p=*/0.0,
      q.size(2) == k.size(2) ? kCausalFromFirstKey : kCausalFromLastKey, /*compute_log_sumexp=*/true, scale));
  return out.transpose(1, 2);
}

/// All documents in one call, without copies; the kernels want D to be a multiple of 8.
at::Tensor varlen(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const std::vector<int64_t>& num_rows,
                  std::optional<double> softmax_scale, int64_t before) {
  const int64_t head_dim = q.size(3);
  const double scale = scale_of(q, softmax_scale);
  const int64_t missing = (8 - head_dim % 8) % 8;
  const auto padded = [&](const at::Tensor& x) { return missing == 0 ? x : at::constant_pad_nd(x, {0, missing}); };
  const VarlenRows queries(q, num_rows);
  const VarlenRows keys = before == 0 ? queries : VarlenRows(q, key_rows(num_rows, before));
  const bool flash = is_16_bit(q) && head_dim <= 256;
  const at::Tensor out =
      (flash ? flash_varlen : efficient_varlen)(padded(q), padded(k), padded(v), queries, keys, scale);
  return missing == 0 ? out : out.narrow(3, 0, head_dim);
}

/// Several documents on CUDA, in one call.
at::Tensor packed_documents(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            const std::vector<int64_t>& num_rows, std::optional<double> softmax_scale, int64_t before) {
  const double scale = scale_of(q, softmax_scale);
  const bool may_vary = !at::globalContext().deterministicAlgorithms();
  if (before == 0 && may_vary && DocumentSizes::favour_cudnn(num_rows, q.size(1) * q.size(3)) &&
      cudnn_documents_run(q, k, num_rows, scale)) {
    return cudnn_documents(q, k, v, num_rows, scale);
  }
  return varlen(q, k, v, num_rows, softmax_scale, before);
}

/// One document whose first queries are elsewhere: q [B, H, n, D] are the last n of the rows of k and v.
at::Tensor continued_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                              std::optional<double> softmax_scale) {
  const int64_t before = k.size(2) - q.size(2);
  const double scale = scale_of(q, softmax_scale);
  if (!q.is_cuda()) {
    return merged_attention(q, for_every_query_head(k, q.size(1)), for_every_query_head(v, q.size(1)), scale);
  }
  if (merged_attention_runs(q, k, v, scale)) return merged_attention(q, k, v, scale);
  if (q.scalar_type() == at::kDouble) {
    const at::Tensor mask = at::ones({q.size(2), k.size(2)}, q.options().dtype(at::kBool)).tril(before);
    return at::scaled_dot_product_attention(q, k, v, mask, /*dropout_p=*/0.0, /*is_causal=*/false, softmax_scale,
                                            /*enable_gqa=*/true);
  }
  std::vector<at::Tensor> sequences;
  for (int64_t i = 0; i < q.size(0); ++i) {
    const auto of = [&](const at::Tensor& x) { return x.narrow(0, i, 1); };
    sequences.push_back(varlen(of(q), of(k), of(v), {q.size(2)}, softmax_scale, before));
  }
  return sequences.size() == 1 ? sequences.front() : at::cat(sequences, 0);
}

at::Tensor one_document(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                        std::optional<double> softmax_scale) {
  if (q.size(2) < k.size(2)) return continued_document(q, k, v, softmax_scale);
  const bool grouped = q.size(1) != k.size(1);
  if (grouped && !may_share_keys(q.is_cuda(), is_16_bit(q), q.size(3))) {
    return one_document(q, for_every_query_head(k, q.size(1)), for_every_query_head(v, q.size(1)), softmax_scale);
  }
  const double scale = scale_of(q, softmax_scale);
  if (q.is_cuda() && q.size(2) >= kLongRows && long_attention_runs(q, k, v, scale)) {
    return long_attention(q, k, v, scale);
  }
  return at::scaled_dot_product_attention(q, k, v, /*attn_mask=*/std::nullopt, /*dropout_p=*/0.0, /*is_causal=*/true,
                                          softmax_scale, grouped);
}

/// cuDNN with its repeatable backward where it runs; else what `attention` takes in PyTorch's deterministic mode.
at::Tensor repeatable(const InnerAttention& attention, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                      size_t num_documents, std::optional<double> softmax_scale) {
  if (num_documents == 1 && q.size(2) == k.size(2) && cudnn_attention_runs(q, k, v, scale_of(q, softmax_scale))) {
    return cudnn_attention(q, k, v, scale_of(q, softmax_scale));
  }
  return run_deterministic(attention, q, k, v);
}

}  // namespace

at::Tensor with_any_gradient(at::Tensor out) {
  if (out.is_cuda() && out.requires_grad()) out.register_hook([](const at::Tensor& dout) { return aligned(dout); });
  return out;
}

at::Tensor attend_each(const InnerAttention& attention, const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                       const std::vector<int64_t>& num_rows, int64_t before) {
  if (num_rows.size() == 1) return attention(q, k, v);
  // Splitting at once, not slicing, keeps the backward linear in the number of documents.
  const std::vector<at::Tensor> q_parts = q.split_with_sizes(num_rows, 2);
  const std::vector<int64_t> num_keys = key_rows(num_rows, before);
  const std::vector<at::Tensor> k_parts = k.split_with_sizes(num_keys, 2);
  const std::vector<at::Tensor> v_parts = v.split_with_sizes(num_keys, 2);
  std::vector<at::Tensor> outputs;
  for (size_t document = 0; document < num_rows.size(); ++document) {
    if (num_rows[document] == 0) continue;
    outputs.push_back(attention(q_parts[document], k_parts[document], v_parts[document]));
  }
  return outputs.size() == 1 ? outputs.front() : at::cat(outputs, 2);
}

at::Tensor stock_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                           const std::vector<int64_t>& num_rows, std::optional<double> softmax_scale,
                           bool deterministic, int64_t before) {
  const bool is_padded = takes_padding(q);
  const std::optional<double> scale = is_padded ? scale_of(q, softmax_scale) : softmax_scale;
  const InnerAttention attention = [&](const at::Tensor& queries, const at::Tensor& keys, const at::Tensor& values) {
    if (num_rows.size() > 1 && q.is_cuda() && q.scalar_type() != at::kDouble) {
      return packed_documents(queries, keys, values, num_rows, scale, before);
    }
    return attend_each([&](const auto& a, const auto& b, const auto& c) { return one_document(a, b, c, scale); },
                       queries, keys, values, num_rows, before);
  };
  if (!q.is_cuda()) return attention(q, k, v);
  const at::Tensor out =
      deterministic ? repeatable(attention, acceptable(q), acceptable(k), acceptable(v), num_rows.size(), scale)
                    : attention(acceptable(q), acceptable(k), acceptable(v));
  return is_padded ? out.narrow(3, 0, q.size(3)) : out;
}

}  // namespace lighthouse::ops

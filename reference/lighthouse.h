// Lighthouse attention in double precision with lists, sorts and look-ups: docs/algorithm.md in executable form. Slow
// on purpose; tests compare everything else with it. Of the library it uses the option struct SelectionConfig only.
#pragma once

#include <cstdint>
#include <vector>

#include "lighthouse/geometry.h"

namespace lighthouse::reference {

/// [B, N, H, D], or [B, S, H, D] after the gather.
struct Tensor {
  int64_t batch = 0, length = 0, heads = 0, channels = 0;
  std::vector<double> values;

  Tensor() = default;
  Tensor(int64_t batch_size, int64_t length_, int64_t num_heads, int64_t num_channels)
      : batch(batch_size), length(length_), heads(num_heads), channels(num_channels) {
    values.resize(static_cast<size_t>(batch * length * heads * channels));
  }
  /// The channels of one head of one token or row.
  double* at(int64_t b, int64_t position, int64_t head) {
    return values.data() + ((b * length + position) * heads + head) * channels;
  }
  const double* at(int64_t b, int64_t position, int64_t head) const {
    return values.data() + ((b * length + position) * heads + head) * channels;
  }
};

/// Level-0 scores, [B, N, H_kv, 1].
struct Scores {
  Tensor qk, kq;
};

/// Flat entries in gathered order, [B, H_kv, S].
struct Selection {
  int64_t batch = 0, kv_heads = 0, rows = 0;
  std::vector<int32_t> entries;

  int64_t at(int64_t b, int64_t kv_head, int64_t row) const { return entries[(b * kv_heads + kv_head) * rows + row]; }
};

/// A row of N tokens and how it is selected from. Packed documents are [cu_seqlens[i], cu_seqlens[i + 1]); none: empty.
struct Sequence {
  int64_t seq_len;
  SelectionConfig config;
  std::vector<int64_t> cu_seqlens;
};

// Section (ii). q, k and v may differ in their number of heads; gate is [B, N, H, 1].
Scores norm_scores(const Tensor& q, const Tensor& k);
Scores dilated_scores(const Tensor& q, const Tensor& k, const Tensor& v, int64_t dilation, const Sequence& sequence);
Scores gla_scores(const Tensor& q, const Tensor& k, const Tensor& v, const Tensor& gate, int64_t dilation,
                  const Sequence& sequence);

// Sections (iii) and (iv).
Selection select(const Scores& scores, const Sequence& sequence);

// Sections (i) and (vi), and their adjoints (vii). Head h of x reads the selection of KV head h * H_kv / H.
Tensor gather(const Tensor& x, const Selection& selection, const Sequence& sequence);
Tensor gather_backward(const Tensor& dx_rows, const Selection& selection, const Sequence& sequence);
Tensor scatter(const Tensor& rows, const Selection& selection, const Sequence& sequence);
Tensor scatter_backward(const Tensor& dout, const Selection& selection, const Sequence& sequence);

/// All of it for a given selection. softmax_scale 0 stands for 1 / sqrt(D).
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const Selection& selection,
                 const Sequence& sequence, double softmax_scale = 0);

/// Gradients of sum(dout * attention(q, k, v)), the selection held fixed.
struct Gradients {
  Tensor dq, dk, dv;
};
Gradients attention_backward(const Tensor& q, const Tensor& k, const Tensor& v, const Selection& selection,
                             const Tensor& dout, const Sequence& sequence, double softmax_scale = 0);

}  // namespace lighthouse::reference

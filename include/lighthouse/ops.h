// Lighthouse attention on PyTorch tensors, on the CPU and on CUDA, with autograd: first derivatives of everything
// exist, second ones of gather and scatter. An undefined tensor, a wrong shape, dtype or value, a tensor on another
// device than the others or on one that there are no kernels for is refused. Python has the same functions under the
// same names: python/lighthouse_attention/functional.py.
//
// Layout: q [B, N, H, D]; k, v [B, N, H_kv, D]; rows [B, H, S, D]. Any strides with contiguous channels. dtypes fp32,
// fp64, bf16, fp16, the same for q, k and v. Wrong arguments throw c10::ValueError (ValueError in Python) with a
// message that names the operation, the value and what would do. H_kv divides H. Index maps are int32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <tuple>

#include "lighthouse/geometry.h"
#include "lighthouse/scorer.h"

namespace lighthouse {

/// Section (ii).
struct ScoreConfig {
  Scorer scorer = Scorer::kNorm;  ///< kRandom is none of these
  int64_t dilation = 4;           ///< residue classes of dilated and gla, >= 1
};

/// (s_qk, s_kq), fp32 [B, H_kv, N], no gradient. `gate` is the log forget gate [B, N, H] (any floating dtype; used in
/// fp32) that `gla` needs, and only gla takes. `cu_seqlens`, host integers: token offsets of packed documents (B = 1).
std::tuple<at::Tensor, at::Tensor> token_scores(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                                const ScoreConfig& config = {},
                                                const std::optional<at::Tensor>& gate = std::nullopt,
                                                at::OptionalIntArrayRef cu_seqlens = std::nullopt);

/// Sections (iii) and (iv): int32 [B, H_kv, S], row -> flat entry, from fp32 scores [B, H_kv, N].
at::Tensor select(const at::Tensor& s_qk, const at::Tensor& s_kq, const SelectionConfig& config,
                  at::OptionalIntArrayRef cu_seqlens = std::nullopt);

/// The linear maps of sections (i) and (vi) for a given selection, differentiable in q, k, v and rows. Their autograd
/// is their adjoint; they keep index maps only, none of q, k, v. The selection must be a forest in gathered order, as
/// select returns it: see AttentionOptions::check_selection.
struct Rows {
  at::Tensor q, k, v;  ///< [B, H, S, D], [B, H_kv, S, D] twice
};
Rows gather(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v, const at::Tensor& selection,
            const SelectionConfig& config, at::OptionalIntArrayRef cu_seqlens = std::nullopt,
            bool check_selection = true);
at::Tensor scatter(const at::Tensor& rows, const at::Tensor& selection, int64_t seq_len, const SelectionConfig& config,
                   at::OptionalIntArrayRef cu_seqlens = std::nullopt, bool check_selection = true);

/// Causal attention over gathered rows: q [B, H, S, D], k and v [B, H_kv, S, D] -> [B, H, S, D].
using InnerAttention = std::function<at::Tensor(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v)>;

/// Stock causal SDPA, grouped-query heads included. `cu_seqlens`: offsets into S of packed documents (B = 1), which do
/// not see one another. `softmax_scale` defaults to 1 / sqrt(D). On CUDA the kernel is cuDNN's on Hopper, whose
/// backward may differ in its last bits from run to run. `deterministic` makes this call and its backward repeat their
/// bits: by cuDNN's repeatable backward on Hopper and data-centre Blackwell for 16-bit types, D a multiple of 8 up to
/// 128 and one document, if the build found cudnn-frontend; else by FlashAttention-2 in its deterministic form. The
/// whole rule is in src/ops/cudnn_attention.h. cuDNN's takes up to 2 GiB of workspace.
at::Tensor causal_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                            std::optional<double> softmax_scale = std::nullopt,
                            at::OptionalIntArrayRef cu_seqlens = std::nullopt, bool deterministic = false);

struct AttentionOptions {
  SelectionConfig selection_config;
  ScoreConfig score_config;
  std::optional<at::Tensor> gate;                            ///< [B, N, H], scorer gla, when it is run
  std::optional<std::tuple<at::Tensor, at::Tensor>> scores;  ///< computed elsewhere; the scorer is not run
  std::optional<at::Tensor> selection;                       ///< fixed selection; neither scores nor scorer are used
  /// A wrong selection is refused by the first wrong row and what may stand there: section (iv), whatever was expanded.
  /// On CUDA that waits for the device. False: it is trusted, as it must be where it comes from select.
  bool check_selection = true;
  at::OptionalIntArrayRef cu_seqlens;  ///< token offsets of packed documents (B = 1)
  std::optional<double> softmax_scale;
  bool deterministic = false;  ///< as in causal_attention; all other stages always are
  InnerAttention attention;    ///< empty: causal_attention. Called once for each document of a packed row
};

/// scatter(attention(gather(q, k, v))) -> [B, N, H, D], differentiable in q, k and v with the selection held fixed.
at::Tensor lighthouse_attention(const at::Tensor& q, const at::Tensor& k, const at::Tensor& v,
                                const AttentionOptions& options);

}  // namespace lighthouse

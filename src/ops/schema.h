// The operators that do the work; src/ops/internal.h says what each is.
#pragma once

namespace lighthouse::ops {

inline constexpr const char* kSchemas[] = {
    "_token_norms(Tensor x, SymInt num_kv_heads) -> Tensor",
    "_gla_scores(Tensor q, Tensor k, Tensor v, Tensor gate, int dilation, int[]? cu_seqlens) -> "
    "(Tensor s_qk, Tensor s_kq)",
    "_select_entries(Tensor s_qk, Tensor s_kq, int[] layout, bool cover_prefix, int[]? cu_seqlens) -> "
    "(Tensor selection, Tensor slots)",
    "_invert_selection(Tensor selection, SymInt seq_len, int[] layout, int[]? cu_seqlens, bool check=True) -> Tensor",
    "_gather_rows(Tensor q, Tensor k, Tensor v, Tensor selection, Tensor slots, int[] layout, int[]? cu_seqlens) -> "
    "(Tensor q_rows, Tensor k_rows, Tensor v_rows)",
    "_gather_rows_backward(Tensor dq_rows, Tensor dk_rows, Tensor dv_rows, Tensor selection, Tensor slots, "
    "SymInt seq_len, int[] layout, int[]? cu_seqlens) -> (Tensor dq, Tensor dk, Tensor dv)",
    "_scatter_rows(Tensor rows, Tensor selection, Tensor slots, SymInt seq_len, int[] layout, int[]? cu_seqlens) -> "
    "Tensor",
    "_scatter_rows_backward(Tensor dout, Tensor selection, Tensor slots, int[] layout, int[]? cu_seqlens) -> "
    "Tensor",
    "_gather_by_norm(Tensor q, Tensor k, Tensor v, int[] layout, bool cover_prefix, int[]? cu_seqlens) -> "
    "(Tensor q_rows, Tensor k_rows, Tensor v_rows, Tensor selection, Tensor slots)",
    "_offsets_like(Tensor like, int[] offsets) -> Tensor",
};

}  // namespace lighthouse::ops

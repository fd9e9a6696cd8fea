"""lighthouse_attention of packed documents as one operator, for traced graphs that are given cu_seqlens as a tensor.

A graph knows the shape of a tensor and none of its values, and the lengths of all that is between gather and scatter follow from
the values of cu_seqlens. So they stay within an operator, which runs lighthouse_attention as eager mode does, with all its
checks: one graph serves any documents. `layout` is as in operators.

    _packed_attention(q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq, cover_prefix, softmax_scale) -> o
    _packed_attention_backward(do, q, k, v, cu_seqlens, ...) -> dq, dk, dv

cu_seqlens is a 1-dimensional tensor of integers, on any device: each run of either reads it, which waits for a device that it is
on. All results are contiguous, of the shapes and the dtype of q, k and v. Nothing is kept for backward but the arguments: it runs the
forward again, with the same bits.

A policy of selective activation checkpointing may name `torch.ops.lighthouse._packed_attention.default`.
"""

import contextlib

import torch

from .errors import require_first_import

require_first_import(globals())

from .inner import acceptable  # noqa: E402
from .operators import ops  # noqa: E402

NAMES = ("_packed_attention", "_packed_attention_backward", "_packed_documents", "_packed_full_attention",
         "_packed_full_attention_backward")
ARGUMENTS = ("Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt[] layout, str scorer, SymInt dilation, Tensor? gate, "
             "Tensor? s_qk, Tensor? s_kq, bool cover_prefix, float? softmax_scale")
# CUDA graphs cannot record an operator that decides on the host what it launches.
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)
library_of_operators = torch.library.Library("lighthouse", "FRAGMENT")


def eager_attention(q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq, cover_prefix, softmax_scale):
    from .functional import lighthouse_attention  # which calls these operators
    sizes = dict(zip(("num_levels", "pooling_factor", "topk", "tile_topk"), layout))
    with torch.autocast(q.device.type, enabled=False):  # q, k and v have been cast
        return lighthouse_attention(q, k, v, **sizes, scorer=scorer, dilation=dilation, gate=gate,
                                    scores=None if s_qk is None else (s_qk, s_kq), cover_prefix=cover_prefix,
                                    cu_seqlens=cu_seqlens, softmax_scale=softmax_scale)


def run_forward(*arguments):
    with torch.no_grad():
        return eager_attention(*arguments).contiguous()


def with_autograd():
    """A context beneath a TorchDispatchMode (a count of FLOPs, say), which turns autograd off for what it calls."""
    if not hasattr(torch._C, "_ForceDispatchKeyGuard"):
        return contextlib.nullcontext()
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for name in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, name))
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)


def run_backward(do, q, k, v, *rest):
    with with_autograd(), torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        o = eager_attention(*inputs, *rest)
    return tuple(gradient.contiguous() for gradient in torch.autograd.grad(o, inputs, do))


def save_arguments(ctx, inputs, output):
    q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq, *rest = inputs
    ctx.save_for_backward(q, k, v, cu_seqlens, gate, s_qk, s_kq)
    ctx.options = layout, scorer, dilation, rest


def input_gradients(ctx, do):
    if torch.is_grad_enabled():
        raise NotImplementedError("lighthouse_attention: cu_seqlens is a tensor in a compiled function, which has no second "
                                  "derivatives; pass a list")
    q, k, v, cu_seqlens, gate, s_qk, s_kq = ctx.saved_tensors
    layout, scorer, dilation, rest = ctx.options
    gradients = torch.ops.lighthouse._packed_attention_backward(do, q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq,
                                                                *rest)
    return *gradients, *(None,) * 9


def contiguous_like(*tensors):
    return tuple(x.new_empty(x.shape) for x in tensors)


def register(name, schema, kernel, fake):
    """Not by torch.library.custom_op: the kernels of that run where autograd is off, so that backward could not run a forward."""
    library_of_operators.define(name + schema, tags=TAGS)
    for device in ("CPU", "CUDA"):
        library_of_operators.impl(name, kernel, device)
    torch.library.register_fake(f"lighthouse::{name}", fake, lib=library_of_operators)


# Plain causal attention over all tokens of documents, within a window of `span` tokens where that is not 0.


def run_documents(cu_seqlens, batch, seq_len):
    """cu_seqlens, checked, on the host."""
    from .functional import EVERY_TOKEN, check_packed_batch, host_offsets
    from . import library
    offsets = host_offsets("dense_attention", cu_seqlens)
    check_packed_batch("dense_attention", batch)
    library.plan("dense_attention", seq_len, EVERY_TOKEN, offsets)
    return torch.tensor(offsets, dtype=torch.int64)


def keeps_rows(q):
    """Whether the forward's output and log-sum-exp serve its backward: where both are FlashAttention-2."""
    return q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[3] <= 256


def eager_full_attention(q, k, v, documents, softmax_scale, span):
    from .functional import full_attention
    from .window import SlidingWindow
    with torch.autocast(q.device.type, enabled=False):
        scale, window = (softmax_scale, None) if span == 0 else (None, SlidingWindow(span, softmax_scale))
        return full_attention("dense_attention", q, k, v, documents.tolist(), scale, window)


def flash_arguments(q, documents, span):
    """Offsets, lengths and options of FlashAttention-2's calls."""
    bounds = sorted(set(documents.tolist()))
    longest = max(end - begin for begin, end in zip(bounds, bounds[1:]))
    offsets = ops._offsets_like(q, bounds)
    window = dict(window_size_left=span - 1, window_size_right=0) if 0 < span < longest else {}
    return (offsets, offsets, longest, longest, 0.0, True), window


def run_full_forward(q, k, v, documents, softmax_scale, span):
    if not keeps_rows(q):
        with torch.no_grad():
            return eager_full_attention(q, k, v, documents, softmax_scale, span).contiguous(), q.new_empty(0, dtype=torch.float32)
    head_dim = q.shape[3]
    scale = head_dim ** -0.5 if softmax_scale is None else softmax_scale
    numbers, window = flash_arguments(q, documents, span)
    out, sums = torch.ops.aten._flash_attention_forward(*(acceptable(x)[0] for x in (q, k, v)), *numbers, False, scale=scale, **window)[:2]
    return out[..., :head_dim].unsqueeze(0).contiguous(), sums


def run_full_backward(do, q, k, v, o, sums, documents, softmax_scale, span):
    if not keeps_rows(q):
        with with_autograd(), torch.enable_grad():
            inputs = [x.detach().requires_grad_() for x in (q, k, v)]
            out = eager_full_attention(*inputs, documents, softmax_scale, span)
        return tuple(gradient.contiguous() for gradient in torch.autograd.grad(out, inputs, do))
    head_dim = q.shape[3]
    scale = head_dim ** -0.5 if softmax_scale is None else softmax_scale
    numbers, window = flash_arguments(q, documents, span)
    do, q, k, v, o = (acceptable(x)[0] for x in (do, q, k, v, o))
    no_dropout = q.new_empty(2, dtype=torch.uint64), q.new_empty((), dtype=torch.uint64)
    gradients = torch.ops.aten._flash_attention_backward(do, q, k, v, o, sums, *numbers, *no_dropout, scale=scale, **window)
    return tuple(gradient[..., :head_dim].unsqueeze(0).contiguous() for gradient in gradients)


def save_full(ctx, inputs, output):
    q, k, v, documents, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output, documents)
    ctx.mark_non_differentiable(output[1])


def full_gradients(ctx, do, _):
    if torch.is_grad_enabled():
        raise NotImplementedError("dense_attention: cu_seqlens is a tensor in a compiled function, which has no second derivatives; pass "
                                  "a list")
    gradients = torch.ops.lighthouse._packed_full_attention_backward(do, *ctx.saved_tensors, *ctx.options)
    return *gradients, None, None, None


def fake_full_forward(q, k, v, documents, softmax_scale, span):
    sums = (q.shape[2], q.shape[1]) if keeps_rows(q) else (0,)
    return q.new_empty(q.shape), q.new_empty(sums, dtype=torch.float32)


register("_packed_documents", "(Tensor cu_seqlens, SymInt batch, SymInt seq_len) -> Tensor", run_documents,
         lambda cu_seqlens, batch, seq_len: torch.empty(cu_seqlens.numel(), dtype=torch.int64))
register("_packed_full_attention", "(Tensor q, Tensor k, Tensor v, Tensor documents, float? softmax_scale, SymInt span) -> (Tensor, Tensor)",
         run_full_forward, fake_full_forward)
register("_packed_full_attention_backward", "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor o, Tensor sums, Tensor documents, "
         "float? softmax_scale, SymInt span) -> (Tensor, Tensor, Tensor)", run_full_backward,
         lambda do, q, k, v, *rest: contiguous_like(q, k, v))
torch.library.register_autograd("lighthouse::_packed_full_attention", full_gradients, setup_context=save_full, lib=library_of_operators)
register("_packed_attention", f"({ARGUMENTS}) -> Tensor", run_forward, lambda q, *rest: contiguous_like(q)[0])
register("_packed_attention_backward", f"(Tensor do, {ARGUMENTS}) -> (Tensor, Tensor, Tensor)", run_backward,
         lambda do, q, k, v, *rest: contiguous_like(q, k, v))
torch.library.register_autograd("lighthouse::_packed_attention", input_gradients, setup_context=save_arguments, lib=library_of_operators)

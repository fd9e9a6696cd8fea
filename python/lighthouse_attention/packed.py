"""Attention of packed documents as operators, for traced graphs that are given cu_seqlens as a tensor.

A graph knows the shape of a tensor and none of its values. So what follows from the values of cu_seqlens stays within operators, which
read them when they run, with the checks and the words of eager mode: one graph serves any documents. `layout` is as in operators.

    _packed_attention(q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq, cover_prefix, softmax_scale) -> o
    _packed_attention_backward(do, q, k, v, cu_seqlens, ...) -> dq, dk, dv

is lighthouse_attention. The lengths of all that is between gather and scatter follow from the values too, so nothing is kept for backward
but the arguments: it runs the forward again, with the same bits.

    _packed_documents(cu_seqlens, batch, seq_len) -> documents
    _packed_full_attention(q, k, v, documents, softmax_scale, span) -> o, log_sum_exp
    _packed_full_attention_backward(do, q, k, v, o, log_sum_exp, documents, softmax_scale, span) -> dq, dk, dv

is causal attention over all tokens, where `span` is not 0 in a sliding window: dense_attention. `documents` are cu_seqlens on the host,
checked. Where FlashAttention-2 runs, bf16 and fp16 on CUDA, backward has its log-sum-exp [H, N]; else that is empty, and backward runs
the forward again.

cu_seqlens is a 1-dimensional tensor of integers, on any device: _packed_documents and each run of _packed_attention or its backward read
it, which waits for a device that it is on. All results are contiguous, of the shapes and the dtype of q, k and v.

A policy of selective activation checkpointing may name `torch.ops.lighthouse._packed_attention.default`, and `_packed_full_attention`.
"""

import contextlib
import itertools

import torch

from .errors import require_first_import

require_first_import(globals())

from . import library  # noqa: E402
from .inner import acceptable, takes_flash  # noqa: E402
from .operators import ops  # noqa: E402

NAMES = ("_packed_attention", "_packed_attention_backward", "_packed_documents", "_packed_full_attention",
         "_packed_full_attention_backward")
ARGUMENTS = ("Tensor q, Tensor k, Tensor v, Tensor cu_seqlens, SymInt[] layout, str scorer, SymInt dilation, Tensor? gate, "
             "Tensor? s_qk, Tensor? s_kq, bool cover_prefix, float? softmax_scale")
# CUDA graphs cannot record an operator that decides on the host what it launches.
TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.cudagraph_unsafe)
library_of_operators = torch.library.Library("lighthouse", "FRAGMENT")


def register(name, schema, kernel, fake):
    """Not by torch.library.custom_op: the kernels of that run where autograd is off, so that backward could not run a forward."""
    library_of_operators.define(name + schema, tags=TAGS)
    for device in ("CPU", "CUDA"):
        library_of_operators.impl(name, kernel, device)
    torch.library.register_fake(f"lighthouse::{name}", fake, lib=library_of_operators)


def contiguous_like(*tensors):
    return tuple(x.new_empty(x.shape) for x in tensors)


def with_autograd():
    """A context beneath a TorchDispatchMode (a count of FLOPs, say), which turns autograd off for what it calls."""
    if not hasattr(torch._C, "_ForceDispatchKeyGuard"):
        return contextlib.nullcontext()
    excluded = torch._C._dispatch_tls_local_exclude_set()
    for name in ("AutogradFunctionality", "AutogradOther", "AutogradNestedTensor", "ADInplaceOrView"):
        excluded = excluded.remove(getattr(torch._C.DispatchKey, name))
    return torch._C._ForceDispatchKeyGuard(torch._C._dispatch_tls_local_include_set(), excluded)


def run_again(attention, do, q, k, v, *rest):
    """Gradients of attention(q, k, v, *rest), of which nothing was kept."""
    with with_autograd(), torch.enable_grad():
        inputs = [x.detach().requires_grad_() for x in (q, k, v)]
        o = attention(*inputs, *rest)
    return tuple(gradient.contiguous() for gradient in torch.autograd.grad(o, inputs, do))


def refuse_second_derivatives(name):
    if torch.is_grad_enabled():
        raise NotImplementedError(f"{name}: cu_seqlens is a tensor in a compiled function, which has no second derivatives; pass a list")


# Lighthouse attention.


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


def run_backward(do, *arguments):
    return run_again(eager_attention, do, *arguments)


def save_arguments(ctx, inputs, output):
    q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq, *rest = inputs
    ctx.save_for_backward(q, k, v, cu_seqlens, gate, s_qk, s_kq)
    ctx.options = layout, scorer, dilation, rest


def input_gradients(ctx, do):
    refuse_second_derivatives("lighthouse_attention")
    q, k, v, cu_seqlens, gate, s_qk, s_kq = ctx.saved_tensors
    layout, scorer, dilation, rest = ctx.options
    gradients = ops._packed_attention_backward(do, q, k, v, cu_seqlens, layout, scorer, dilation, gate, s_qk, s_kq, *rest)
    return *gradients, *(None,) * 9


register("_packed_attention", f"({ARGUMENTS}) -> Tensor", run_forward, lambda q, *rest: contiguous_like(q)[0])
register("_packed_attention_backward", f"(Tensor do, {ARGUMENTS}) -> (Tensor, Tensor, Tensor)", run_backward,
         lambda do, q, k, v, *rest: contiguous_like(q, k, v))
torch.library.register_autograd("lighthouse::_packed_attention", input_gradients, setup_context=save_arguments, lib=library_of_operators)


# Attention over all tokens, in windows or not.


def read_documents(cu_seqlens, batch, seq_len):
    from .functional import EVERY_TOKEN, check_packed_batch, host_offsets
    offsets = host_offsets("dense_attention", cu_seqlens)
    check_packed_batch("dense_attention", batch)
    library.plan("dense_attention", seq_len, EVERY_TOKEN, offsets)
    return torch.tensor(offsets, dtype=torch.int64)


def eager_full_attention(q, k, v, documents, softmax_scale, span):
    from .functional import full_attention
    from .window import SlidingWindow
    how = (softmax_scale, None) if span == 0 else (None, SlidingWindow(span, softmax_scale))
    with torch.autocast(q.device.type, enabled=False):
        return full_attention("dense_attention", q, k, v, documents.tolist(), *how)


def flash_options(q, documents, softmax_scale, span):
    """(offsets, lengths, dropout, causality) and (scale, window) as FlashAttention-2's forward and backward take them."""
    bounds = sorted(set(documents.tolist()))
    offsets, longest = ops._offsets_like(q, bounds), max(end - begin for begin, end in itertools.pairwise(bounds))
    named = dict(scale=q.shape[3] ** -0.5 if softmax_scale is None else softmax_scale)
    if 0 < span < longest:
        named |= dict(window_size_left=span - 1, window_size_right=0)
    return (offsets, offsets, longest, longest, 0.0, True), named


def run_full_forward(q, k, v, documents, softmax_scale, span):
    if not takes_flash(q):
        with torch.no_grad():
            return eager_full_attention(q, k, v, documents, softmax_scale, span).contiguous(), q.new_empty(0, dtype=torch.float32)
    options, named = flash_options(q, documents, softmax_scale, span)
    rows = (acceptable(x)[0] for x in (q, k, v))
    o, log_sum_exp = torch.ops.aten._flash_attention_forward(*rows, *options, False, **named)[:2]
    return o[..., :q.shape[3]].unsqueeze(0).contiguous(), log_sum_exp


def run_full_backward(do, q, k, v, o, log_sum_exp, documents, softmax_scale, span):
    if not takes_flash(q):
        return run_again(eager_full_attention, do, q, k, v, documents, softmax_scale, span)
    options, named = flash_options(q, documents, softmax_scale, span)
    rows = (acceptable(x)[0] for x in (do, q, k, v, o))
    no_dropout = q.new_empty(2, dtype=torch.uint64), q.new_empty((), dtype=torch.uint64)
    gradients = torch.ops.aten._flash_attention_backward(*rows, log_sum_exp, *options, *no_dropout, **named)
    return tuple(gradient[..., :q.shape[3]].unsqueeze(0).contiguous() for gradient in gradients)


def save_results(ctx, inputs, output):
    q, k, v, documents, *ctx.options = inputs
    ctx.save_for_backward(q, k, v, *output, documents)
    ctx.mark_non_differentiable(output[1])


def full_gradients(ctx, do, _):
    refuse_second_derivatives("dense_attention")
    return *ops._packed_full_attention_backward(do, *ctx.saved_tensors, *ctx.options), None, None, None


def empty_results(q, k, v, documents, softmax_scale, span):
    return *contiguous_like(q), q.new_empty((q.shape[2], q.shape[1]) if takes_flash(q) else (0,), dtype=torch.float32)


register("_packed_documents", "(Tensor cu_seqlens, SymInt batch, SymInt seq_len) -> Tensor", read_documents,
         lambda cu_seqlens, batch, seq_len: torch.empty(cu_seqlens.numel(), dtype=torch.int64))
register("_packed_full_attention", "(Tensor q, Tensor k, Tensor v, Tensor documents, float? softmax_scale, SymInt span) -> (Tensor, Tensor)",
         run_full_forward, empty_results)
register("_packed_full_attention_backward", "(Tensor do, Tensor q, Tensor k, Tensor v, Tensor o, Tensor log_sum_exp, Tensor documents, "
         "float? softmax_scale, SymInt span) -> (Tensor, Tensor, Tensor)", run_full_backward,
         lambda do, q, k, v, *rest: contiguous_like(q, k, v))
torch.library.register_autograd("lighthouse::_packed_full_attention", full_gradients, setup_context=save_results, lib=library_of_operators)

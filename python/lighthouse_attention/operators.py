"""What the stable ABI leaves to Python: fake (Meta) kernels, autograd and vmap of `torch.ops.lighthouse.*`.

The operators and their kernels for CPU and CUDA come from the library. Each is told about the gathered sequence by
`layout` = [num_levels, pooling_factor, topk, tile_topk] and `cu_seqlens` (a list, or None). Of a part of a row, the tokens of
one rank (context.py), `layout` goes on with [seq_len, tile_begin, tile_end] of the row, and cu_seqlens are the row's. A
selection is two int32 arrays: `selection` [B, H_kv, S], row -> flat entry, and `slots` [B, H_kv, num_slots], slot -> row or -1.

    _gather_by_norm(q, k, v, layout, cover_prefix, cu_seqlens) -> q_rows, k_rows, v_rows, selection, slots
    _token_norms(x, num_kv_heads) -> fp32 [B, H_kv, N]
    _gla_scores(q, k, v, gate, dilation, cu_seqlens) -> s_qk, s_kq
    _select_entries(s_qk, s_kq, layout, cover_prefix, cu_seqlens) -> selection, slots
    _invert_selection(selection, seq_len, layout, cu_seqlens, check) -> slots
    _gather_rows(q, k, v, selection, slots, layout, cu_seqlens) -> q_rows, k_rows, v_rows
    _gather_rows_backward(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens) -> dq, dk, dv
    _scatter_rows(rows, selection, slots, seq_len, layout, cu_seqlens, carried=None) -> out
    _scatter_rows_backward(dout, selection, slots, layout, cu_seqlens, dout_after=None) -> drows
    _carry_rows(rows, selection, slots, layout, cu_seqlens) -> carried [B, L-1, H, d], for the part after
    _offsets_like(like, offsets) -> int32, on the device of `like`

A policy of selective activation checkpointing (torch.utils.checkpoint) may name them: to keep the selection is
MUST_SAVE for `torch.ops.lighthouse._gather_by_norm.default` (or `_select_entries.default` with other scorers). It need
not: computed again, a selection has the same bits.

In a traced graph N and topk may be symbols: S is a function of them, and a graph serves all lengths in which no tile runs
short and S < N; shorter rows have another. Packed documents and parts of rows are constants of a graph; packed.py has the
operators of one that serves any documents.
"""

import functools

import torch

from . import library
from .errors import require_first_import

require_first_import(globals())

NAMES = ("_token_norms", "_gla_scores", "_select_entries", "_invert_selection", "_gather_rows", "_gather_rows_backward",
         "_scatter_rows", "_scatter_rows_backward", "_carry_rows", "_gather_by_norm", "_offsets_like")
ops = torch.ops.lighthouse
library_of_kernels = torch.library.Library("lighthouse", "IMPL")  # it takes its kernels with it when it goes


def fake(name):
    return torch.library.register_fake(f"lighthouse::{name}")


def lengths(seq_len, layout, cu_seqlens):
    """(gathered_len, num_slots): symbolic where seq_len is. Packed documents and parts of rows make it a constant, as they are."""
    if isinstance(seq_len, torch.SymInt) and cu_seqlens is None and len(layout) == 4:
        return symbolic_lengths(seq_len, layout)
    gathered_len, num_slots, _ = library.plan("lighthouse", int(seq_len), layout, cu_seqlens)
    return gathered_len, num_slots


def symbolic_lengths(seq_len, layout):
    """What include/lighthouse/geometry.h computes, with symbols: S of section (iii), and the length of `slots`."""
    library.plan("lighthouse", 1, [1 if isinstance(value, torch.SymInt) else value for value in layout])  # for its checks
    num_rows = rows_by_cascade(seq_len, layout)
    if num_rows >= seq_len:  # a guard of the graph: the row would not get shorter
        return seq_len, seq_len
    num_levels, pooling_factor, _, _ = layout
    return num_rows, sum(ceil_div(seq_len, pooling_factor**level) for level in range(num_levels))


def rows_by_cascade(seq_len, layout):
    """The rows that the cascade would emit for a row of `seq_len` tokens, fewer than these or not."""
    num_levels, pooling_factor, topk, tile_topk = layout
    num_coarse, num_tiles = ceil_div(seq_len, pooling_factor ** (num_levels - 1)), ceil_div(topk, tile_topk)
    if num_coarse // num_tiles >= ceil_div(topk, num_tiles):  # a guard of the graph: no tile runs short
        return num_coarse + (num_levels - 1) * pooling_factor * topk
    smaller = min if torch.compiler.is_dynamo_compiling() else torch.sym_min  # Dynamo makes one of the other, for symbols
    gathered_len = num_coarse
    for tile in range(num_tiles):
        candidates, budget = ((tile + 1) * total // num_tiles - tile * total // num_tiles for total in (num_coarse, topk))
        for _ in range(num_levels - 1):
            candidates = pooling_factor * smaller(budget, candidates)
            gathered_len = gathered_len + candidates
    return gathered_len


def ceil_div(a, b):
    return (a + b - 1) // b


def empty_rows(q, k, gathered_len):
    return [x.new_empty((x.shape[0], x.shape[2], gathered_len, x.shape[3])) for x in (q, k, k)]


@fake("_token_norms")
def _(x, num_kv_heads):
    return x.new_empty((x.shape[0], num_kv_heads, x.shape[1]), dtype=torch.float32)


@fake("_gla_scores")
def _(q, k, v, gate, dilation, cu_seqlens):
    return tuple(q.new_empty((q.shape[0], k.shape[2], q.shape[1]), dtype=torch.float32) for _ in range(2))


@fake("_select_entries")
def _(s_qk, s_kq, layout, cover_prefix, cu_seqlens):
    return tuple(s_qk.new_empty((*s_qk.shape[:2], length), dtype=torch.int32)
                 for length in lengths(s_qk.shape[2], layout, cu_seqlens))


@fake("_invert_selection")
def _(selection, seq_len, layout, cu_seqlens, check=True):
    return selection.new_empty((*selection.shape[:2], lengths(seq_len, layout, cu_seqlens)[1]))


@fake("_gather_rows")
def _(q, k, v, selection, slots, layout, cu_seqlens):
    return tuple(empty_rows(q, k, lengths(q.shape[1], layout, cu_seqlens)[0]))


@fake("_gather_by_norm")
def _(q, k, v, layout, cover_prefix, cu_seqlens):
    gathered_len, num_slots = lengths(q.shape[1], layout, cu_seqlens)
    maps = [q.new_empty((q.shape[0], k.shape[2], length), dtype=torch.int32) for length in (gathered_len, num_slots)]
    return *empty_rows(q, k, gathered_len), *maps


@fake("_gather_rows_backward")
def _(dq_rows, dk_rows, dv_rows, selection, slots, seq_len, layout, cu_seqlens):
    return tuple(x.new_empty((x.shape[0], seq_len, x.shape[1], x.shape[3])) for x in (dq_rows, dk_rows, dv_rows))


@fake("_scatter_rows")
def _(rows, selection, slots, seq_len, layout, cu_seqlens, carried=None):
    return rows.new_empty((rows.shape[0], seq_len, rows.shape[1], rows.shape[3]))


@fake("_scatter_rows_backward")
def _(dout, selection, slots, layout, cu_seqlens, dout_after=None):
    gathered_len, _ = lengths(dout.shape[1], layout, cu_seqlens)
    return dout.new_empty((dout.shape[0], dout.shape[2], gathered_len, dout.shape[3]))


@fake("_carry_rows")
def _(rows, selection, slots, layout, cu_seqlens):
    return rows.new_empty((rows.shape[0], layout[0] - 1, rows.shape[1], rows.shape[3]))


@fake("_offsets_like")
def _(like, offsets):
    return like.new_empty((len(offsets),), dtype=torch.int32)


# Section (vii). Each linear map's gradient is its adjoint, whose gradient is the map: second derivatives exist. Nothing
# is kept but the gathering: the index arrays, N and what the plan is made of. What crosses a cut (carried, dout_after) takes no part:
# context.py has the gradient of both sides.

LINEAR_MAPS = {  # its adjoint, and the gathering among its arguments and results: selection, slots, N, layout, cu_seqlens
    "_gather_rows": ("_gather_rows_backward", lambda given, made: (*given[3:5], given[0].shape[1], *given[5:])),
    "_gather_by_norm": ("_gather_rows_backward", lambda given, made: (*made[3:], given[0].shape[1], given[3], given[5])),
    "_gather_rows_backward": ("_gather_rows", lambda given, made: given[3:]),
    "_scatter_rows": ("_scatter_rows_backward", lambda given, made: given[1:6]),
    "_scatter_rows_backward": ("_scatter_rows", lambda given, made: (*given[1:3], given[0].shape[1], *given[3:5])),
}
TAKES_SEQ_LEN = ("_gather_rows_backward", "_scatter_rows")  # the others see N in the shape of their argument
eager = {}  # of the maps, by name, as eager mode calls them


def contiguous_channels(gradient):
    """Gradients arrive with any strides, among them 0 where a sum was expanded; the kernels need the last to be 1."""
    return gradient if gradient.stride(-1) == 1 or gradient.shape[-1] == 1 else gradient.contiguous()


def differentiable(name):
    """Autograd for a linear map, whose first arguments are differentiable: three for gather, one for scatter.

    Returns the operator as eager mode calls it: with autograd around the operator, where a call of `torch.ops.lighthouse.*`
    finds autograd inside, by way of the dispatcher, which takes as long as all the rest. In a traced graph the two are one."""
    operator = getattr(ops, name).default
    adjoint, gathering_of = LINEAR_MAPS[name]
    num_inputs, first_rest = 3 if "gather" in name else 1, 0 if adjoint in TAKES_SEQ_LEN else 1

    def setup_context(ctx, inputs, output):
        selection, slots, *ctx.rest = gathering_of(inputs, output)
        ctx.save_for_backward(selection, slots)

    def input_gradients(ctx, gradients):
        results = eager[adjoint](*map(contiguous_channels, gradients[:num_inputs]), *ctx.saved_tensors, *ctx.rest[first_rest:])
        return results if num_inputs > 1 else (results,)

    if not (hasattr(torch._C, "_AutoDispatchBelowAutograd") and hasattr(torch._C, "_after_autograd_keyset")):
        rest = (None,) * (len(operator._schema.arguments) - num_inputs)
        torch.library.register_autograd(f"lighthouse::{name}", lambda ctx, *gradients: (*input_gradients(ctx, gradients), *rest),
                                        setup_context=setup_context)
        return operator

    # What register_autograd does (torch/_library/autograd.py), but for its search for default arguments, which these
    # operators can do without: it is half of the time of a call.
    below_autograd, above_kernels = torch._C._AutoDispatchBelowAutograd, torch._C._after_autograd_keyset

    class Differentiable(torch.autograd.Function):
        @staticmethod
        def forward(ctx, call, arguments, *inputs):  # the fewer arguments, the sooner torch has looked at them
            with below_autograd():
                results = call(*arguments)
            setup_context(ctx, arguments, results)
            ctx._materialize_non_diff_grads = False  # nobody reads gradients of index arrays
            return results

        @staticmethod
        def backward(ctx, *gradients):
            return None, None, *input_gradients(ctx, gradients)

    def run(call, *arguments):
        inputs = arguments[:num_inputs]
        if torch.is_grad_enabled() and any([x.requires_grad for x in inputs]):
            return Differentiable.apply(call, arguments, *inputs)
        with below_autograd():
            return call(*arguments)

    def kernel(keyset, *arguments):
        return run(functools.partial(operator.redispatch, keyset & above_kernels), *arguments)

    def around(*arguments):
        if torch.compiler.is_compiling() or torch._C._are_functorch_transforms_active():
            return operator(*arguments)
        return run(operator, *arguments)

    library_of_kernels.impl(name, kernel, "Autograd", with_keyset=True)
    return around


for _name in LINEAR_MAPS:
    eager[_name] = differentiable(_name)
gather_rows, gather_by_norm, gather_rows_backward, scatter_rows, scatter_rows_backward = eager.values()


def batching_rule(name):
    """torch.func.vmap: the mapped dimension joins the batch, which every tensor has first."""
    operator = getattr(ops, name)

    def rule(info, in_dims, *arguments):
        def joined(argument, dimension):
            if not isinstance(argument, torch.Tensor):
                return argument
            batched = argument.expand(info.batch_size, *argument.shape) if dimension is None else argument.movedim(dimension, 0)
            joint = batched.flatten(0, 1)
            return joint if joint.is_floating_point() else joint.contiguous()  # index arrays, which may have been expanded

        results = operator(*map(joined, arguments, in_dims))
        split = [result.unflatten(0, (info.batch_size, -1)) for result in (results if isinstance(results, tuple) else [results])]
        return (tuple(split), tuple(0 for _ in split)) if isinstance(results, tuple) else (split[0], 0)

    return rule


for _name in NAMES:
    if _name != "_offsets_like":
        torch.library.register_vmap(f"lighthouse::{_name}", batching_rule(_name))

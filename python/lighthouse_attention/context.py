"""Context parallelism: the ranks of a group share a row of tokens. Tiles own tokens, heads own attention (docs/design.md): a
rank scores, selects, gathers and scatters its own tokens, a run of whole tiles, and attends to all rows of some heads.

This file is what ranks own and exchange; src/parallel is the same in C++. The bits are those of one process.
"""

import collections
import contextlib
import functools
from itertools import pairwise
from typing import NamedTuple

import torch
import torch.distributed as dist
import torch.distributed._functional_collectives as collectives
import torch.nn.functional as F

from . import library
from .errors import require
from .operators import contiguous_channels, ops

COMPARED_CALLS = 128  # of a group: more than a model has layers


def group_name(operation, group):
    """Of a ProcessGroup, a DeviceMesh of one dimension, or such a name: what a copy or a pickle of a module can hold."""
    if isinstance(group, dist.ProcessGroup):
        return group.group_name
    if isinstance(group, dist.DeviceMesh):
        require(group.ndim == 1, f"{operation}: group is a DeviceMesh of {group.ndim} dimensions; it must have one: mesh['cp']")
        return group.get_group().group_name
    require(isinstance(group, str), f"{operation}: group is a {type(group).__name__}; it must be a ProcessGroup or a DeviceMesh of "
            "one dimension, in which this process is")
    return group


def process_group(operation, group):
    name = group_name(operation, group)
    try:
        return dist.distributed_c10d._resolve_process_group(name)
    except (RuntimeError, ValueError, LookupError):
        raise ValueError(f"{operation}: there is no process group '{name}' in this process; give it its own `group`") from None


class Share(NamedTuple):
    """A row that ranks share, as one of them sees it. Constants of a traced graph."""

    group: str  # its name
    rank: int
    tokens: tuple  # [W + 1]: rank r has the tokens from tokens[r] on
    heads: tuple  # [W]: (begin, end) of the query heads that each rank attends to
    kv_heads: tuple  # [W]: of the heads that serve these; they overlap where there are fewer than ranks


class Part(NamedTuple):
    """What follows for the tiles of this rank."""

    layout: tuple  # as operators take it
    rows: tuple  # [W + 1], as Share.tokens
    continues_before: bool  # rows of the rank before reach this rank's tokens
    tokens_after: int  # of the rank after, which rows of this rank reach
    reach: int  # F - 1: no row reaches more of them


def token_offsets(operation, num_tokens, num_ranks, cu_seqlens, shard_offsets):
    """Where ranks begin, checked; equal parts by default."""
    if shard_offsets is None:
        offsets = [rank * num_tokens for rank in range(num_ranks + 1)]
    else:
        offsets = shard_offsets
        require(len(offsets) == num_ranks + 1, f"{operation}: shard_offsets are of {len(offsets) - 1} ranks, but the group has "
                f"{num_ranks}; it must be [0, ..., N], where each rank begins and the end")
        require(offsets[0] == 0 and all(begin < end for begin, end in pairwise(offsets)), f"{operation}: shard_offsets are "
                f"{list(offsets)}; they must begin at 0 and grow: each rank has a token or more")
    end = offsets[-1] if cu_seqlens is None else cu_seqlens[-1]
    require(end == offsets[-1], f"{operation}: cu_seqlens ends at {end}, but the ranks have {offsets[-1]} tokens; it must be of "
            "the whole row, and shard_offsets must say where ranks of unequal lengths begin")
    return tuple(offsets)


def head_spans(operation, num_heads, num_kv_heads, num_ranks):
    """HeadSpans of src/parallel/head_exchange.h."""
    require(num_heads % num_ranks == 0, f"{operation}: {num_heads} query heads for a group of {num_ranks} ranks; the number of "
            "ranks must divide the number of heads")
    require(num_kv_heads % num_ranks == 0 or num_ranks % num_kv_heads == 0, f"{operation}: {num_kv_heads} key/value heads for a "
            f"group of {num_ranks} ranks; one number must divide the other")
    own, served = num_heads // num_ranks, num_heads // num_kv_heads
    heads = tuple((begin, begin + own) for begin in range(0, num_heads, own))
    return heads, tuple((begin // served, (end - 1) // served + 1) for begin, end in heads)


@torch.compiler.assume_constant_result
def group_size(operation, group):
    return process_group(operation, group).size()


@torch.compiler.assume_constant_result
def plan_of(operation, group, num_tokens, num_heads, num_kv_heads, layout, cu_seqlens, shard_offsets):
    """(share, part, rows of each document); part is None where nothing is selected.

    Raises:
        ValueError: what is given does not fit the group, or this rank; or ranks are not cut at ends of tiles.
    """
    group = process_group(operation, group)
    tokens = token_offsets(operation, num_tokens, group.size(), cu_seqlens, shard_offsets)
    own = tokens[group.rank() + 1] - tokens[group.rank()]
    require(num_tokens == own, f"{operation}: rank {group.rank()} of the group has {num_tokens} tokens, but owns {own} by "
            f"shard_offsets {list(tokens)}")
    share = Share(group.group_name, group.rank(), tokens, *head_spans(operation, num_heads, num_kv_heads, group.size()))
    gathered_len, _, num_rows = library.plan(operation, tokens[-1], layout, cu_seqlens)
    if gathered_len == tokens[-1]:
        return share, None, num_rows
    return share, part_of(operation, tuple(layout), cu_seqlens and tuple(cu_seqlens), tokens, group.rank()), num_rows


@functools.lru_cache(maxsize=256)
def part_of(operation, layout, cu_seqlens, tokens, rank):
    rows, (tile_begin, tile_end, continues_before, *reached) = library.context_plan(operation, layout, cu_seqlens, tokens, rank)
    return Part((*layout, tokens[-1], tile_begin, tile_end), tuple(rows), bool(continues_before), *reached)


# Ranks that were not called alike wait for one another until they time out. So the first calls of a group compare.

calls_of_group = collections.Counter()


def agreed(operation, group, q, check):
    """What check() -> (result, {name: what ranks must give alike}) returns first, without a collective of its own. Where a rank
    differs, or a check of one fails, all of them raise ValueError. A traced graph compares nothing, nor does a CUDA graph that is
    captured, as that would wait for the device: q's, which need not be the current one."""
    on_cuda = getattr(q, "is_cuda", False)
    if torch.compiler.is_compiling() or (on_cuda and torch.cuda.is_current_stream_capturing()):
        return check()[0]
    group = process_group(operation, group)
    calls_of_group[group.group_name] += 1
    if calls_of_group[group.group_name] > COMPARED_CALLS:
        return check()[0]
    result, call, error = None, {}, None
    try:
        result, call = check()
    except Exception as caught:  # of whatever kind, the others must not wait for this rank
        error = caught
    calls = [None] * group.size()
    with torch.cuda.device(q.device) if on_cuda else contextlib.nullcontext():  # NCCL would take the current one
        dist.all_gather_object(calls, (call, error and str(error)), group=group)
    if error is not None:
        raise error
    compare(operation, calls)
    return result


def compare(operation, calls):
    for rank, (_, error) in enumerate(calls):
        require(error is None, f"{error} (on rank {rank} of the group)")
    (first, _), *others = calls
    for rank, (call, _) in enumerate(others, 1):
        for name in first:
            require(call[name] == first[name], f"{operation}: {name} is {call[name]} on rank {rank} of the group, but "
                    f"{first[name]} on rank 0; all ranks must be given the same")


def lengths(offsets):
    return [end - begin for begin, end in pairwise(offsets)]


def exchange(blocks, num_rows, share):
    """Sends a block [rows, d] to each rank; returns theirs, of `num_rows` rows."""
    sent = torch.cat(blocks)
    received = collectives.all_to_all_single(sent, num_rows, [len(block) for block in blocks], share.group)
    return collectives.wait_tensor(received).split(num_rows)


def all_rows(x, heads, rows, share):
    """Rows of this rank of all heads [B, H, S_r, d] -> all rows of this rank's heads [B, h, S, d]."""
    batch, _, _, head_dim = x.shape
    begin, end = heads[share.rank]
    parts = exchange([x[:, begin:end].reshape(-1, head_dim) for begin, end in heads],
                     [batch * (end - begin) * length for length in lengths(rows)], share)
    return torch.cat([part.view(batch, end - begin, -1, head_dim) for part in parts], 2)


def all_heads(x, heads, rows, share, merge=torch.add):
    """The inverse. What several ranks say of one head is merged, in fp32 (fp64 for fp64) and in the order of ranks."""
    batch, _, _, head_dim = x.shape
    own = lengths(rows)[share.rank]
    parts = exchange([part.reshape(-1, head_dim) for part in x.split(lengths(rows), 2)],
                     [batch * (end - begin) * own for begin, end in heads], share)
    of_heads = {}
    for (begin, end), part in zip(heads, parts):
        of_heads.setdefault((begin, end), []).append(part.view(batch, end - begin, own, head_dim))
    wide = x.dtype if x.dtype == torch.float64 else torch.float32
    return torch.cat([same[0] if len(same) == 1 else functools.reduce(merge, [part.to(wide) for part in same]).to(x.dtype)
                      for same in of_heads.values()], 1)


class Exchange(torch.autograd.Function):
    """all_rows, whose gradient is all_heads; or all_heads, of heads that one rank has each, whose gradient is all_rows."""

    @staticmethod
    def forward(ctx, x, there, back, heads, rows, share):
        ctx.back, ctx.rest = back, (heads, rows, share)
        return there(x, heads, rows, share)

    @staticmethod
    def backward(ctx, gradient):
        return ctx.back(gradient, *ctx.rest), None, None, None, None, None


def attend_by_heads(attention, q, k, v, rows, share):
    """attention(q, k, v) of all rows of this rank's heads, given this rank's rows of all: [B, H, S_r, d] -> the same."""
    of_heads = [Exchange.apply(x, all_rows, all_heads, heads, rows, share)
                for x, heads in ((q, share.heads), (k, share.kv_heads), (v, share.kv_heads))]
    return Exchange.apply(attention(*of_heads), all_heads, all_rows, share.heads, rows, share)


def scores_by_heads(scorer, q, k, v, gate, share):
    """scorer(q, k, v, gate=gate) of all tokens of this rank's heads; the scores of all heads of this rank's tokens."""
    def all_tokens(x, heads):
        return all_rows(x.detach().transpose(1, 2), heads, share.tokens, share).transpose(1, 2)

    if gate is not None:
        gate = all_tokens(gate.unsqueeze(3), share.heads).squeeze(3)
    scores = scorer(all_tokens(q, share.heads), all_tokens(k, share.kv_heads), all_tokens(v, share.kv_heads), gate=gate)
    return [all_heads(score.unsqueeze(3), share.kv_heads, share.tokens, share, torch.fmax).squeeze(3) for score in scores]


def from_rank(x, rank, share):
    """What rank `rank` shows, None where there is no such rank. All show x [B, ...] of one shape."""
    shown = collectives.wait_tensor(collectives.all_gather_tensor(x.contiguous(), 0, share.group))
    return shown.unflatten(0, (-1, x.shape[0]))[rank] if 0 <= rank < len(share.heads) else None


class Scatter(torch.autograd.Function):
    """Rows of this rank [B, H, S_r, d] added to its tokens [B, N_r, H, d], and those of the rank before that reach them."""

    @staticmethod
    def forward(ctx, rows, selection, slots, seq_len, part, cu_seqlens, share):
        ctx.save_for_backward(selection, slots)
        ctx.rest = part, cu_seqlens, share
        carried = from_rank(ops._carry_rows(rows, selection, slots, part.layout, cu_seqlens), share.rank - 1, share)
        carried = carried if part.continues_before else None
        return ops._scatter_rows(rows, selection, slots, seq_len, part.layout, cu_seqlens, carried)

    @staticmethod
    def backward(ctx, gradient):
        part, cu_seqlens, share = ctx.rest
        gradient = contiguous_channels(gradient)
        front = gradient[:, :part.reach]
        front = F.pad(front, (0, 0, 0, 0, 0, part.reach - front.shape[1]))
        after = from_rank(front, share.rank + 1, share)
        after = after[:, :part.tokens_after] if part.tokens_after else None
        rows = ops._scatter_rows_backward(gradient, *ctx.saved_tensors, part.layout, cu_seqlens, after)
        return rows, None, None, None, None, None, None

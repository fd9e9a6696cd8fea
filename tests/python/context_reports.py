"""Faults that users of other context parallelism have reported, as tests of ours (docs/reliability.md); two ranks run them, in
test_context.py."""

import dataclasses
import functools

import torch
import torch.distributed as dist
from attention_cases import Case, check_equal, results_of
from context_cases import CASES, both, of_rank, shards_of
from lighthouse_attention import lighthouse_attention

SMALL = Case(num_heads=2, num_kv_heads=2, head_dim=8, layout=dict(num_levels=2, pooling_factor=2, topk=32, tile_topk=1), batch=1)
MIDDLE = SMALL.seq_len // 2


def short_documents_across_a_cut():
    """Of 1 to 50 tokens, about the middle, next to which ranks are cut. No row of the result is zero."""
    for length in range(1, 51):
        begin = MIDDLE - length // 2
        case = dataclasses.replace(SMALL, cu_seqlens=[0, begin, begin + length, SMALL.seq_len])
        ours, theirs = both(case, dist.group.WORLD)
        check_equal(ours, theirs)
        assert all(x.isfinite().all() for x in ours) and (ours[0] != 0).any(-1).all()


def documents_see_no_other():
    """Another document in the middle leaves the results and gradients of those beside it as they are, on both ranks."""
    case = dataclasses.replace(SMALL, cu_seqlens=[0, MIDDLE - 20, MIDDLE + 20, SMALL.seq_len])
    shards, changed = shards_of(case, dist.group.WORLD), torch.zeros(SMALL.seq_len, dtype=torch.bool)
    changed[MIDDLE - 20:MIDDLE + 20] = True
    tensors = case.tensors()
    other = [torch.where(changed[None, :, None, None], -3 * x, x) for x in tensors]
    function = functools.partial(lighthouse_attention, **of_rank(case.options(), shards), group=dist.group.WORLD)
    before, after = (results_of(function, *map(shards.take, x)) for x in (tensors, other))
    beside = ~shards.take(changed, 0)
    assert 0 < beside.sum() < len(beside)
    for x, y in zip(before, after):
        assert torch.equal(x[:, beside], y[:, beside]) and not torch.equal(x, y)


def each_rank_alone_has_its_gradients():
    """A gradient of the tokens of one rank reaches the tokens of all ranks before it."""
    for name in ("plain", "packed"):
        for rank in range(dist.get_world_size()):
            case, shards = CASES[name], shards_of(CASES[name], dist.group.WORLD)
            q, k, v, grad_out = case.tensors()
            only = torch.zeros_like(grad_out)
            own = slice(shards.offsets[rank], shards.offsets[rank + 1])
            only[:, own] = grad_out[:, own]
            whole = results_of(lambda *qkv: lighthouse_attention(*qkv, **case.options()), q, k, v, only)
            function = functools.partial(lighthouse_attention, **of_rank(case.options(), shards), group=dist.group.WORLD)
            check_equal(results_of(function, *map(shards.take, (q, k, v, only))), list(map(shards.take, whole)))


def gradients_are_derivatives():
    """In one direction of all inputs of all ranks, by differences in fp64."""
    case, shards, step = CASES["packed"], shards_of(CASES["packed"], dist.group.WORLD), 1e-6
    function = functools.partial(lighthouse_attention, **of_rank(case.options(), shards), group=dist.group.WORLD)
    *qkv, grad_out = map(shards.take, case.tensors(torch.float64))
    *direction, _ = map(shards.take, case.tensors(torch.float64, seed=1))

    def value(sign):
        return (function(*(x + sign * step * d for x, d in zip(qkv, direction))) * grad_out).sum()

    _, *gradients = results_of(function, *qkv, grad_out)
    sums = torch.stack([value(1) - value(-1), sum((x * d).sum() for x, d in zip(gradients, direction))])
    dist.all_reduce(sums)
    torch.testing.assert_close(sums[0] / (2 * step), sums[1], rtol=1e-6, atol=0)


def repeats_are_equal():
    first, _ = both(CASES["packed"], dist.group.WORLD)
    for _ in range(20):
        again, _ = both(CASES["packed"], dist.group.WORLD)
        check_equal(again, first)


def large_logits():
    """Of 1e4 and more, either sign."""
    case, shards = SMALL, shards_of(SMALL, dist.group.WORLD)
    q, k, v, grad_out = case.tensors()
    tensors = 200 * q, 200 * k, v, grad_out
    whole = results_of(lambda *qkv: lighthouse_attention(*qkv, **case.options()), *tensors)
    function = functools.partial(lighthouse_attention, **of_rank(case.options(), shards), group=dist.group.WORLD)
    part = results_of(function, *map(shards.take, tensors))
    assert (q * k).sum(-1).abs().max() * 200**2 / 8**0.5 > 1e4 and all(x.isfinite().all() for x in part)
    check_equal(part, list(map(shards.take, whole)))


TESTS = {function.__name__: function for function in (
    short_documents_across_a_cut, documents_see_no_other, each_rank_alone_has_its_gradients, gradients_are_derivatives,
    repeats_are_equal, large_logits)}

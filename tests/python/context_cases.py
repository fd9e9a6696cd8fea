"""What ranks compute in test_context.py: rows that they share, compared with the same on one process."""

import contextlib
import copy
import dataclasses
import functools
import pickle
import traceback
import types

import pytest
import torch
import torch.distributed as dist
from attention_cases import PACKED, Case, check_equal, results_of
from lighthouse_attention import LighthouseAttention, TokenShards, context, lighthouse_attention
from lighthouse_attention.module import dense_attention
from torch.utils.checkpoint import checkpoint, create_selective_checkpoint_contexts

LAYOUT = dict(num_levels=3, pooling_factor=2, topk=20, tile_topk=4)  # 5 tiles
DEEP = dict(num_levels=4, pooling_factor=4, topk=6, tile_topk=1)
CASES = {
    "plain": Case(num_heads=12, num_kv_heads=12, head_dim=8, layout=LAYOUT),
    "grouped": Case(num_heads=24, num_kv_heads=12, head_dim=8, layout=LAYOUT),
    "fewer-kv-heads": Case(num_heads=24, num_kv_heads=1, head_dim=8, layout=LAYOUT),
    "two-kv-heads": Case(num_heads=12, num_kv_heads=2, head_dim=8, layout=LAYOUT, **PACKED),
    "uncovered": Case(num_heads=12, num_kv_heads=12, head_dim=8, layout=LAYOUT, cover_prefix=False),
    "deep": Case(num_heads=12, num_kv_heads=12, head_dim=8, seq_len=1027, layout=DEEP),
    "packed": Case(num_heads=12, num_kv_heads=12, head_dim=8, layout=LAYOUT, **PACKED),
    "dilated": Case(num_heads=12, num_kv_heads=12, head_dim=8, layout=LAYOUT, scorer="dilated"),
    "dilated-packed": Case(num_heads=24, num_kv_heads=12, head_dim=8, layout=LAYOUT, scorer="dilated", **PACKED),
    "gla": Case(num_heads=24, num_kv_heads=12, head_dim=8, layout=LAYOUT, scorer="gla"),
    "gla-packed": Case(num_heads=12, num_kv_heads=12, head_dim=8, layout=LAYOUT, scorer="gla", **PACKED),
    "scores": Case(num_heads=24, num_kv_heads=12, head_dim=8, layout=LAYOUT, given="scores", softmax_scale=0.3),
    "full": Case(num_heads=24, num_kv_heads=12, head_dim=8, layout=dict(LAYOUT, topk=200)),
    "full-packed": Case(num_heads=12, num_kv_heads=12, head_dim=8, layout=dict(LAYOUT, topk=200), **PACKED),
}


def shards_of(case, group):
    return TokenShards(case.seq_len, group, **case.layout, cu_seqlens=case.cu_seqlens)


def of_rank(options, shards):
    """The options of a call with what belongs to tokens cut."""
    options = dict(options, shard_offsets=shards.offsets)
    if options.get("gate") is not None:
        options["gate"] = shards.take(options["gate"])
    if options.get("scores") is not None:
        options["scores"] = tuple(shards.take(score, 2) for score in options["scores"])
    return options


def both(case, group, dtype=torch.float32, function=lighthouse_attention):
    """Results of this rank, and its part of those of one process."""
    tensors, options, shards = case.tensors(dtype), case.options(), shards_of(case, group)
    whole = results_of(lambda *qkv: lighthouse_attention(*qkv, **options), *tensors)
    options = of_rank(options, shards)
    part = results_of(lambda *qkv: function(*qkv, **options, group=group), *map(shards.take, tensors))
    return part, list(map(shards.take, whole))


def check_case(name, dtype):
    ours, theirs = both(CASES[name], dist.group.WORLD, dtype)
    if CASES[name].num_kv_heads < dist.get_world_size():  # each rank sums its part of dk and dv, no more than N rows; rounds it
        sums = torch.float64 if dtype == torch.float64 else torch.float32
        bound = 2 * torch.finfo(dtype).eps + CASES[name].seq_len * torch.finfo(sums).eps
        for part, whole in zip(ours[2:], theirs[2:]):
            assert (part - whole).norm() <= bound * whole.norm()
        ours, theirs = ours[:2], theirs[:2]
    check_equal(ours, theirs)


# Each of these is a test: it runs on every rank, and raises.


def compiled():
    graph = torch.compile(lighthouse_attention, fullgraph=True, dynamic=True, backend="aot_eager")
    check_equal(*both(CASES["gla-packed"], dist.group.WORLD, function=graph))


def compiled_for_another_group():
    """A graph knows its group by name: another one makes another graph, with its own cuts."""
    graph, everyone = torch.compile(lighthouse_attention, fullgraph=True, backend="aot_eager"), dist.group.WORLD
    size = dist.get_world_size()
    other = dist.new_group() if size == 2 else dist.init_device_mesh("cpu", (size // 2, 2), mesh_dim_names=("dp", "cp"))["cp"]
    for group in (everyone, other, everyone):
        check_equal(*both(CASES["plain"], group, function=graph))
    case, shards = CASES["plain"], shards_of(CASES["plain"], everyone)
    options = dict(case.options(), group=everyone, shard_offsets=[*shards.offsets, 300])
    refused(lambda: graph(*map(shards.take, case.tensors()[:3]), **options), f"the group has {size}",
            kind=torch._dynamo.exc.TorchDynamoException)


def checkpointed(**options):
    def function(q, k, v, **of_call):
        return checkpoint(functools.partial(lighthouse_attention, **of_call), q, k, v, use_reentrant=False, **options)

    for name in ("packed", "dilated"):
        check_equal(*both(CASES[name], dist.group.WORLD, function=function))


def checkpointed_but_for_the_selection():
    kept = [torch.ops.lighthouse._gather_by_norm.default]
    checkpointed(context_fn=functools.partial(create_selective_checkpoint_contexts, kept))


def autocast():
    with torch.autocast("cpu", torch.bfloat16):
        ours, theirs = both(CASES["grouped"], dist.group.WORLD)
    assert ours[0].dtype == torch.bfloat16
    check_equal(ours, theirs)


def another_attention():
    def attention(q, k, v):
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=0.3)

    case = dataclasses.replace(CASES["packed"], softmax_scale=0.3)

    def function(*qkv, **options):
        return lighthouse_attention(*qkv, **options | dict(softmax_scale=None), attention=attention)

    check_equal(*both(case, dist.group.WORLD, function=function))


def transposed():
    check_equal(*both(dataclasses.replace(CASES["plain"], transposed=True), dist.group.WORLD))


def mesh():
    """The same row on each pair of ranks, and a mesh of one rank."""
    size = dist.get_world_size()
    pairs = dist.init_device_mesh("cpu", (size // 2, 2, 1), mesh_dim_names=("dp", "cp", "tp"))
    check_equal(*both(CASES["packed"], pairs["cp"]))
    check_equal(*both(CASES["packed"], pairs["cp"].get_group()))
    check_equal(*both(CASES["packed"], pairs["tp"]))
    refused(lambda: both(CASES["packed"], pairs), "DeviceMesh of 3 dimensions")


def module():
    """In both stages, and copies."""
    case, shards = CASES["packed"], shards_of(CASES["packed"], dist.group.WORLD)
    q, k, v, grad_out = case.tensors()
    options = dict(cu_seqlens=case.cu_seqlens)
    attention = LighthouseAttention(**case.layout, group=dist.group.WORLD)
    for layer in (attention, copy.deepcopy(attention), pickle.loads(pickle.dumps(attention))):
        for layer.enabled in (True, False):
            function, layout = (lighthouse_attention, case.layout) if layer.enabled else (dense_attention, {})
            whole = results_of(functools.partial(function, **layout, **options), q, k, v, grad_out)
            part = functools.partial(layer, shard_offsets=shards.offsets, **options)
            check_equal(results_of(part, *map(shards.take, (q, k, v, grad_out))), list(map(shards.take, whole)))


def shards():
    """Ends of tiles next to equal parts; positions begin again with each document."""
    shards = TokenShards(203, dist.group.WORLD, **LAYOUT, cu_seqlens=torch.tensor(PACKED["cu_seqlens"]))
    assert shards.offsets[0] == 0 and shards.offsets[-1] == 203 and len(shards.offsets) == dist.get_world_size() + 1
    whole = torch.cat([torch.arange(length) for length in (1, 69, 0, 80, 53)])
    assert torch.equal(shards.positions()[0], shards.take(whole, 0))
    refused(lambda: TokenShards(203, dist.group.WORLD, topk=8), "1 tiles for")
    refused(lambda: shards.take(whole[1:], 0), "has 202 elements, but the row has 203 tokens")


# Wrong use: every rank says what is wrong, and the next call is as any.


def refused(function, *words, kind=ValueError):
    try:
        function()
    except kind as error:
        assert all(word in str(error) for word in words), f"{error}\nhas not all of {words}"
        return
    raise AssertionError(f"no {kind.__name__} with {words}")


def wrong_use():
    case, rank, size = CASES["plain"], dist.get_rank(), dist.get_world_size()
    shards = shards_of(case, dist.group.WORLD)
    right = dict(case.layout, group=dist.group.WORLD, shard_offsets=shards.offsets)
    part = [shards.take(x) for x in case.tensors()[:3]]

    def call(*qkv, **options):
        return lighthouse_attention(*(qkv or part), **right | options)

    middle = [offset + (0 < offset < 203) for offset in shards.offsets]
    moved = [x[:, middle[rank]:middle[rank + 1]] for x in case.tensors()[:3]]
    few = [x[:, :, :size + 1] for x in part]
    last = size - 1
    refused(lambda: call(shard_offsets=[0, 100, 150, 180, 190, 203]), "of 5 ranks", f"the group has {size}")
    refused(lambda: call(shard_offsets=[0] * size + [203]), "they must begin at 0 and grow")
    refused(lambda: call(*moved, shard_offsets=middle), f"cut at token {middle[1]}, which is inside of a tile")
    refused(lambda: call(*few), f"{size + 1} query heads for a group of {size} ranks")
    refused(lambda: call(cu_seqlens=[0, 150]), "cu_seqlens is given with batch 2")
    refused(lambda: call(group=3), "group is a int")
    refused(lambda: call(group="elsewhere"), "no process group 'elsewhere'")
    refused(lambda: call(selection=torch.zeros(2, 12, 9, dtype=torch.int32)), "selection is given to ranks")
    refused(lambda: call(scorer="gla", gate=torch.zeros(2, 7, 12)), "gate has shape [2, 7, 12]")
    refused(lambda: call(scores=[torch.zeros(2, 12, 7)] * 2), "s_qk has shape [2, 12, 7]")
    # On one rank only:
    refused(lambda: call(topk=20 - (rank == last)), "topk is 19", f"on rank {last}", "20 on rank 0")
    refused(lambda: call(*(x.to(torch.bfloat16 if rank == 0 else x.dtype) for x in part)), "dtype is torch.float32 on rank 1")
    refused(lambda: call(*(x.requires_grad_(rank == 0) for x in part)), "with_gradient is")
    refused(lambda: call(*(x[:, 1:] if rank == last else x for x in part)), f"rank {last} of the group has", "by shard_offsets")
    refused(lambda: call(part[0].to_mkldnn() if rank == 0 else part[0], *part[1:]), "q has layout torch._mkldnn")
    refused(lambda: call(part[0], part[1], part[1][:, :, :1] if rank == 0 else part[2]), "v has shape")
    call(*(x.detach() for x in part))
    refused(lambda: LighthouseAttention(topk=8, group=7), "group is a int")


def compares_the_first_calls_only():
    case, calls = CASES["plain"], []
    original, context.compare = context.compare, lambda *arguments: calls.append(arguments)
    context.calls_of_group.clear()
    context.COMPARED_CALLS, before = 2, context.COMPARED_CALLS
    for _ in range(4):
        both(case, dist.group.WORLD)
    context.compare, context.COMPARED_CALLS = original, before
    assert len(calls) == 2


def compares_on_the_device_of_q():
    """Which need not be the current one, of which NCCL would make the messages; never while a CUDA graph is captured."""
    q, seen = types.SimpleNamespace(is_cuda=True, device="cuda:3"), []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "device", lambda device: seen.append(device) or contextlib.nullcontext())
        for capturing in (False, True):
            patch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)
            context.calls_of_group.clear()
            assert context.agreed("test", dist.group.WORLD, q, lambda: (5, {})) == 5
    assert seen == ["cuda:3"]


def run(names):
    """{name: None, or what went wrong on this rank}, in this order on all ranks."""
    failures = {}
    for name, function in names.items():
        try:
            function()
            failures[name] = None
        except Exception:
            failures[name] = traceback.format_exc()
    return failures


def tests_for(size):
    tests = {function.__name__: function for function in (wrong_use, compares_the_first_calls_only,
                                                           compares_on_the_device_of_q, shards, module)}
    if size == 2:
        tests |= {function.__name__: function for function in (checkpointed, checkpointed_but_for_the_selection, autocast,
                                                               another_attention, transposed, compiled)}
    if size % 2 == 0:
        tests |= dict(mesh=mesh, compiled_for_another_group=compiled_for_another_group)
    dtypes = (torch.float32, torch.bfloat16, torch.float64) if size == 4 else (torch.float32,)
    return tests | {f"{name}-{str(dtype)[6:]}": functools.partial(check_case, name, dtype) for name in CASES for dtype in dtypes
                    if CASES[name].num_kv_heads % size == 0 or size % CASES[name].num_kv_heads == 0}

"""torch.compile and activation checkpointing give the bits of eager mode."""

import itertools
from dataclasses import replace
from functools import partial

import pytest
import torch
import torch._dynamo.testing
from attention_cases import CASES, Case, check_equal, results_of
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts
import lighthouse_attention as lighthouse
from lighthouse_attention import library
from lighthouse_attention.operators import symbolic_lengths

lighthouse_attention = lighthouse.lighthouse_attention
pytestmark = pytest.mark.usefixtures("fresh_compiler")
NAMES = [name for name, case in CASES.items() if name != "one-token"]


@pytest.mark.parametrize("name", NAMES)
def test_one_graph_forward_and_backward(name):
    function = partial(lighthouse_attention, **CASES[name].options())
    compiled = torch.compile(function, fullgraph=True, backend="aot_eager")
    tensors = CASES[name].tensors()
    check_equal(results_of(compiled, *tensors), results_of(function, *tensors))


def test_generated_code():
    """With PyTorch's own compiler (inductor), inside a function with something to fuse around the attention."""
    case = CASES["grouped"]
    options = case.options()

    def function(q, k, v):
        return lighthouse_attention(q * 2, k, v, **options) * 2

    tensors = case.tensors()
    check_equal(results_of(torch.compile(function, fullgraph=True), *tensors), results_of(function, *tensors))


# Sequence lengths. S is a function of N, in symbols too: one graph serves all lengths in which no tile runs short.


def check_lengths(backend, dynamic, function, cases):
    """Compiles function(q, k, v), runs it on each case and returns how many graphs there were after each."""
    counter = torch._dynamo.testing.CompileCounterWithBackend(backend)
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=dynamic)
    counts = []
    for case in cases:
        tensors = case.tensors()
        check_equal(results_of(compiled, *tensors), results_of(function, *tensors))
        counts.append(counter.frame_count)
    return counts


LENGTHS = (203, 64, 96, 512, 1000, 203)


def test_symbolic_lengths_are_those_of_the_library():
    for num_levels, pooling_factor, (topk, tile_topk) in itertools.product(
            (1, 2, 3, 4), (2, 4, 8), ((1, 128), (4, 128), (7, 2), (9, 4), (300, 128), (5, 1))):
        layout = [num_levels, pooling_factor, topk, tile_topk]
        for seq_len in (*range(1, 70), 203, 1000, 5000):
            assert symbolic_lengths(seq_len, layout) == library.plan("test", seq_len, layout)[:2], (layout, seq_len)


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_one_graph_for_all_lengths(backend):
    function = partial(lighthouse_attention, **Case().layout)
    cases = [Case(seq_len=seq_len) for seq_len in LENGTHS]
    assert check_lengths(backend, True, function, cases) == [1] * len(cases)


def test_the_second_length_makes_it_dynamic():
    """By default the first graph is for its own sizes, the second for all."""
    function = partial(lighthouse_attention, **Case().layout)
    cases = [Case(seq_len=seq_len) for seq_len in LENGTHS]
    assert check_lengths("aot_eager", None, function, cases) == [1] + [2] * (len(cases) - 1)


def test_batch_and_length_change_together():
    function = partial(lighthouse_attention, **Case().layout)
    cases = [Case(batch=batch, seq_len=seq_len) for batch, seq_len in ((3, 203), (5, 96), (7, 512))]  # 2 is H_kv: one symbol
    assert check_lengths("aot_eager", True, function, cases) == [1, 1, 1]


def test_short_rows_have_a_graph_of_their_own():
    function = partial(lighthouse_attention, **Case().layout)
    cases = [Case(seq_len=seq_len) for seq_len in (203, 41, 20, 33, 96, 30)]
    assert check_lengths("aot_eager", True, function, cases) == [1, 2, 2, 2, 2, 2]


def test_rows_that_would_not_get_shorter_have_a_graph_of_their_own():
    function = partial(lighthouse_attention, num_levels=3, pooling_factor=2, topk=2)
    cases = [Case(seq_len=seq_len) for seq_len in (203, 7, 8, 5, 96)]
    assert check_lengths("aot_eager", True, function, cases) == [1, 2, 2, 2, 2]


@pytest.mark.parametrize("backend", ["aot_eager", "inductor"])
def test_topk_may_follow_the_length(backend):
    def function(q, k, v):
        return lighthouse_attention(q, k, v, topk=q.shape[1] // 16, pooling_factor=2, tile_topk=8)

    cases = [Case(seq_len=seq_len) for seq_len in (203, 64, 96, 1000, 400)]
    assert check_lengths(backend, True, function, cases) == [1] * len(cases)


@pytest.mark.parametrize("name", ["scores", "gla", "scale", "transposed", "deep"])
def test_all_lengths_with_other_options(name):
    case = CASES[name]
    gate = torch.randn(case.num_heads)

    def function(q, k, v):
        options = dict(case.layout, scorer=case.scorer, softmax_scale=case.softmax_scale)
        if name == "gla":
            options["gate"] = gate.expand(q.shape[:3]).sigmoid().log()
        if name == "scores":
            options["scores"] = lighthouse.token_scores(q * 2, k, v)
        return lighthouse_attention(q, k, v, **options)

    counts = check_lengths("aot_eager", True, function, [replace(case, seq_len=seq_len) for seq_len in (203, 300, 416)])
    assert len(set(counts)) == 1  # torch begins anew for a softmax_scale, and counts that


def test_the_dilated_scorer_has_a_graph_for_each_remainder():
    function = partial(lighthouse_attention, scorer="dilated", dilation=4, **Case().layout)
    cases = [Case(seq_len=seq_len) for seq_len in (203, 303, 64, 512, 103, 105, 205)]
    assert check_lengths("aot_eager", True, function, cases) == [1, 1, 2, 2, 2, 3, 3]


def test_documents_change():
    compiled = torch.compile(lighthouse_attention, fullgraph=True, backend="aot_eager")
    case = CASES["packed"]
    for bounds in ([0, 50, 203], [0, 60, 203], [0, 60, 100, 203]):
        options = dict(case.layout, cu_seqlens=bounds)
        tensors = case.tensors()
        check_equal(results_of(partial(compiled, **options), *tensors),
                    results_of(partial(lighthouse_attention, **options), *tensors))


def test_the_callers_attention_is_traced():
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention
    case = Case(batch=1, head_dim=32)
    rows = lighthouse.gathered_length(case.seq_len, **case.layout)
    mask = create_block_mask(lambda b, h, q, kv: q >= kv, None, None, rows, rows, device="cpu")

    def attention(q, k, v):
        return flex_attention(q, k, v, block_mask=mask, enable_gqa=True)

    q, k, v, _ = case.tensors()
    compiled = torch.compile(partial(lighthouse_attention, attention=attention, **case.layout), fullgraph=True)
    with torch.no_grad():  # flex_attention has no backward on the CPU
        error = (compiled(q, k, v) - lighthouse_attention(q, k, v, **case.layout)).abs().max()
    assert error < 1e-5  # two attentions in fp32 on values of order 1: some roundings of 6e-8


# Activation checkpointing. The selection is recomputed with the same bits, so gradients are those without it.


def selections(monkeypatch):
    """Every selection that is made from now on."""
    made = []
    gather = lighthouse.functional.gather_by_norm

    def record(*arguments):
        results = gather(*arguments)
        made.append(results[3].clone())
        return results

    monkeypatch.setattr(lighthouse.functional, "gather_by_norm", record)
    return made


def test_recomputation_selects_the_same(monkeypatch):
    case = CASES["grouped"]
    function = partial(lighthouse_attention, **case.options())
    expected = results_of(function, *case.tensors())
    made = selections(monkeypatch)
    check_equal(results_of(lambda *qkv: checkpoint(function, *qkv, use_reentrant=False), *case.tensors()), expected)
    assert len(made) == 2 and torch.equal(*made)


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["grouped", "packed", "gla"])
def test_checkpointed(name, compiled):
    case = CASES[name]
    function = partial(lighthouse_attention, **case.options())
    expected = results_of(function, *case.tensors())

    def checkpointed(q, k, v):
        return checkpoint(function, q, k, v, use_reentrant=False)

    run = torch.compile(checkpointed, fullgraph=True, backend="aot_eager") if compiled else checkpointed
    check_equal(results_of(run, *case.tensors()), expected)


def keep_selection(context, operator, *arguments, **options):
    names = (torch.ops.lighthouse._gather_by_norm.default, torch.ops.lighthouse._select_entries.default)
    return CheckpointPolicy.MUST_SAVE if operator in names else CheckpointPolicy.PREFER_RECOMPUTE


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("name", ["grouped", "gla"])
def test_selective_policy_names_operators(name, compiled):
    case = CASES[name]
    function = partial(lighthouse_attention, **case.options())
    expected = results_of(function, *case.tensors())

    def checkpointed(q, k, v):
        return checkpoint(function, q, k, v, use_reentrant=False,
                          context_fn=partial(create_selective_checkpoint_contexts, keep_selection))

    run = torch.compile(checkpointed, fullgraph=True, backend="aot_eager") if compiled else checkpointed
    check_equal(results_of(run, *case.tensors()), expected)

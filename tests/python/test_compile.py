"""torch.compile and activation checkpointing give the bits of eager mode."""

from functools import partial

import pytest
import torch
from attention_cases import CASES, Case, check_equal, results_of
from torch.utils.checkpoint import CheckpointPolicy, checkpoint, create_selective_checkpoint_contexts

lighthouse = pytest.importorskip("lighthouse_attention")
lighthouse_attention = lighthouse.lighthouse_attention
NAMES = [name for name, case in CASES.items() if name != "one-token"]


@pytest.fixture(autouse=True)
def fresh():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


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


@pytest.mark.parametrize("dynamic", [None, True])
def test_sequence_lengths_change(dynamic):
    """N is a constant of each graph: a new length is compiled anew, whatever `dynamic` says; B is not."""
    counter = torch._dynamo.testing.CompileCounterWithBackend("aot_eager")
    function = partial(lighthouse_attention, **Case().layout)
    compiled = torch.compile(function, fullgraph=True, backend=counter, dynamic=dynamic)
    for seq_len in (203, 64, 96, 203):
        tensors = Case(seq_len=seq_len).tensors()
        check_equal(results_of(compiled, *tensors), results_of(function, *tensors))
    assert counter.frame_count == 3
    for batch in (3, 5):
        tensors = Case(batch=batch, seq_len=96).tensors()
        check_equal(results_of(compiled, *tensors), results_of(function, *tensors))
    assert counter.frame_count <= 4


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


def test_cu_seqlens_as_a_tensor_cannot_be_traced():
    case = CASES["packed"]
    compiled = torch.compile(partial(lighthouse_attention, **case.layout), fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception, match="pass a list"):
        compiled(*case.tensors()[:3], cu_seqlens=torch.tensor(case.cu_seqlens))


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

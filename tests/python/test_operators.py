"""torch.library.opcheck for every operator: schema, autograd registration, fake kernels, tracing with dynamic shapes."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from attention_cases import CASES, results_of
import lighthouse_attention as lighthouse
from lighthouse_attention import operators, packed

ops = torch.ops.lighthouse


def arguments_of(name, case, requires_grad=True):
    """Arguments of each operator on the tensors of a case."""
    q, k, v, grad_out = (x.requires_grad_(requires_grad) for x in case.tensors())
    layout, offsets = list(case.layout.values()), case.cu_seqlens
    num_tiles = lighthouse.library.context_plan(name, layout, offsets, [0, case.seq_len], 0)[1][1]
    with torch.no_grad():
        q_rows, k_rows, v_rows, selection, slots = ops._gather_by_norm(q, k, v, layout, True, offsets)
        rows = [x.detach().requires_grad_(requires_grad) for x in (q_rows, k_rows, v_rows)]
        scores = torch.rand(2, case.batch, case.num_kv_heads, case.seq_len)
    return {
        "_token_norms": (q.detach(), case.num_kv_heads),
        "_gla_scores": (q.detach(), k.detach(), v.detach(), -torch.rand(q.shape[:3]), 3, offsets),
        "_select_entries": (*scores, layout, True, offsets),
        "_invert_selection": (selection, case.seq_len, layout, offsets),
        "_gather_rows": (q, k, v, selection, slots, layout, offsets),
        "_gather_rows_backward": (*rows, selection, slots, case.seq_len, layout, offsets),
        "_scatter_rows": (rows[0], selection, slots, case.seq_len, layout, offsets),
        "_scatter_rows_backward": (grad_out, selection, slots, layout, offsets),
        "_carry_rows": (q_rows, selection, slots, [*layout, case.seq_len, 0, num_tiles], offsets),
        "_gather_by_norm": (q, k, v, layout, True, offsets),
        "_offsets_like": (q.detach(), [0, 3, 7]),
    }[name]


@pytest.mark.parametrize("case", ["grouped", "packed", "transposed"])
@pytest.mark.parametrize("name", operators.NAMES)
def test_opcheck(name, case):
    torch.library.opcheck(getattr(ops, name).default, arguments_of(name, CASES[case]))


def test_every_operator_is_listed():
    registered = {name.removeprefix("lighthouse::") for name in torch._C._dispatch_get_all_op_names()
                  if name.startswith("lighthouse::")}
    assert registered == {*operators.NAMES, *packed.NAMES}


@pytest.mark.parametrize("name", operators.NAMES)
def test_fake_tensors_have_the_layout_of_real_ones(name):
    arguments = arguments_of(name, CASES["transposed"], requires_grad=False)
    real = getattr(ops, name)(*arguments)
    with torch._subclasses.FakeTensorMode(allow_non_fake_inputs=True) as mode:
        fake = getattr(ops, name)(*(mode.from_tensor(x) if isinstance(x, torch.Tensor) else x for x in arguments))
    for ours, theirs in zip(*(x if isinstance(x, (tuple, list)) else [x] for x in (fake, real))):
        assert (ours.shape, ours.stride(), ours.dtype) == (theirs.shape, theirs.stride(), theirs.dtype)


@pytest.mark.parametrize("case", ["grouped", "packed"])
def test_parts_of_a_row_are_the_whole(case):
    """Two runs of tiles, with what crosses the cut: rows and tokens of the operators for the whole row."""
    case = CASES[case]
    q, k, v, grad_out = case.tensors()
    layout, offsets = list(case.layout.values()), case.cu_seqlens
    cuts = lighthouse.library.token_offsets("test", case.seq_len, layout, offsets, 2)
    rows, carried, after = [], None, []
    for rank, (begin, end) in enumerate(zip(cuts, cuts[1:])):
        _, (tile_begin, tile_end, continues, tokens_after, _) = lighthouse.library.context_plan("test", layout, offsets, cuts, rank)
        part = [*layout, case.seq_len, tile_begin, tile_end]
        after = grad_out[:, end:end + tokens_after] if tokens_after else None
        own = [x[:, begin:end] for x in (q, k, v)]
        q_rows, _, _, *maps = ops._gather_by_norm(*own, part, True, offsets)
        out = ops._scatter_rows(q_rows, *maps, end - begin, part, offsets, carried if continues else None)
        rows.append((q_rows, out, ops._scatter_rows_backward(grad_out[:, begin:end], *maps, part, offsets, after)))
        carried = ops._carry_rows(q_rows, *maps, part, offsets)
    q_rows, _, _, *maps = ops._gather_by_norm(q, k, v, layout, True, offsets)
    whole = (q_rows, ops._scatter_rows(q_rows, *maps, case.seq_len, layout, offsets),
             ops._scatter_rows_backward(grad_out, *maps, layout, offsets))
    for parts, expected, dimension in zip(zip(*rows), whole, (2, 1, 2)):
        assert torch.equal(torch.cat(parts, dimension), expected)
    with pytest.raises((ValueError, RuntimeError), match=r"layout has 5 elements"):
        ops._gather_by_norm(q, k, v, [*layout, 1], True, offsets)


@pytest.mark.parametrize("name", ["_gather_rows", "_gather_by_norm", "_gather_rows_backward", "_scatter_rows",
                                  "_scatter_rows_backward"])
def test_eager_calls_are_the_operators(name):
    """With autograd around an operator and with autograd inside: the same results, gradients and second derivatives."""
    def run(call):
        arguments = arguments_of(name, CASES["grouped"])
        inputs = [x for x in arguments if isinstance(x, torch.Tensor) and x.requires_grad]
        results = call(*arguments)
        outputs = [x for x in (results if isinstance(results, tuple) else [results]) if x.is_floating_point()]
        cotangents = [torch.ones_like(x, requires_grad=True) for x in outputs]
        gradients = torch.autograd.grad(outputs, inputs, cotangents, create_graph=True)
        return *outputs, *gradients, *torch.autograd.grad(gradients, cotangents, [x.cos() for x in gradients])

    eager = getattr(operators, name.removeprefix("_"))
    assert all(map(torch.equal, run(eager), run(getattr(ops, name))))
    assert eager(*arguments_of(name, CASES["grouped"], requires_grad=False)) is not None


def test_no_gradient_is_made_for_index_arrays():
    q, k, v, _ = (x.requires_grad_() for x in CASES["grouped"].tensors())
    rows = operators.gather_by_norm(q, k, v, list(CASES["grouped"].layout.values()), True, None)
    with torch.profiler.profile() as profile:
        torch.autograd.grad(rows[:3], (q, k, v), [torch.ones_like(x) for x in rows[:3]])
    assert not [event.name for event in profile.events() if "zero" in event.name]


WITHOUT_PRIVATE_NAMES = """
import builtins, sys, torch
sys.path.insert(0, sys.argv[1])
exists = builtins.hasattr
builtins.hasattr = lambda item, name: name != "_after_autograd_keyset" and exists(item, name)
from lighthouse_attention import lighthouse_attention
builtins.hasattr = exists
from attention_cases import CASES, results_of
case = CASES["grouped"]
torch.save(results_of(lambda q, k, v: lighthouse_attention(q, k, v, **case.layout), *case.tensors()), sys.argv[2])
"""


def test_autograd_of_a_torch_that_renamed_what_is_its_own(tmp_path):
    """operators.py has a shorter way than torch.library.register_autograd, and takes the latter where it must."""
    subprocess.run([sys.executable, "-c", WITHOUT_PRIVATE_NAMES, Path(__file__).parent, tmp_path / "results.pt"], check=True)
    case = CASES["grouped"]
    expected = results_of(lambda q, k, v: lighthouse.lighthouse_attention(q, k, v, **case.layout), *case.tensors())
    assert all(map(torch.equal, torch.load(tmp_path / "results.pt"), expected))

"""The functions: the bits of the C++ operators, the authors' results, and what the documentation promises."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from attention_cases import CASES, Case, check_equal, flat, results_of
from safetensors import safe_open
import lighthouse_attention as lighthouse
from lighthouse_attention import library

lighthouse_attention, select, token_scores = lighthouse.lighthouse_attention, lighthouse.select, lighthouse.token_scores
GOLDEN = Path(__file__).parents[1] / "golden"


def attend(q, k, v, grad_out, **options):
    """Output and gradients."""
    return results_of(partial(lighthouse_attention, **options), q, k, v, grad_out)


DTYPES = {"plain": [torch.float64, torch.float32, torch.bfloat16, torch.float16], "packed": [torch.float32, torch.bfloat16]}
RUNS = [(name, dtype) for name in CASES for dtype in DTYPES.get(name, [torch.float32])]


@pytest.mark.parametrize(("name", "dtype"), RUNS, ids=str)
def test_bits_of_the_cpp_functions(cpp, name, dtype):
    options, tensors = CASES[name].options(), CASES[name].tensors(dtype)
    check_equal(attend(*tensors, **options), results_of(partial(cpp.attention, **flat(options)), *tensors))


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.given])
def test_scores_of_the_cpp_functions(cpp, name):
    options = {key: CASES[name].options()[key] for key in ("scorer", "dilation", "gate", "cu_seqlens")}
    tensors = CASES[name].tensors()[:3]
    assert all(map(torch.equal, token_scores(*tensors, **options), cpp.token_scores(*tensors, **options)))


# The errors of a plain fp32 implementation, to two digits, as in tests/cpp/ops/golden_test.cpp.
GOLDEN_BOUNDS = {"o": 1.45e-6, "dq": 2.85e-6, "dk": 2.55e-6, "dv": 5.75e-6}
SCORE_BOUNDS = {"norm": 1.25e-6, "dilated": 3.85e-6}


@pytest.mark.parametrize("scorer", ["norm", "dilated"])
@pytest.mark.parametrize("name", ["a", "f"])
def test_results_of_the_authors(name, scorer):
    with safe_open(GOLDEN / f"{name}.safetensors", "pt") as file:
        data = {key: file.get_tensor(key) for key in file.keys()}
        number = {key: int(value) for key, value in file.metadata().items() if value.isdigit()}
    q, k, v, grad_out = data["q"], data["k"], data["v"], data["grad_out"].transpose(1, 2)
    layout = dict(num_levels=number["L"], pooling_factor=number["p"], topk=number["k"], tile_topk=number["m"])
    scores = token_scores(q, k, v, scorer=scorer, dilation=number["dilation"])
    for ours, theirs in zip(scores, ("s_qk", "s_kq")):
        assert (ours - data[f"{scorer}.{theirs}"]).abs().max() <= SCORE_BOUNDS[scorer]
    selection = select(*scores, cover_prefix=False, **layout)
    assert torch.equal(selection, data[f"{scorer}.idx"])
    assert selection.shape[2] == number["S"] == lighthouse.gathered_length(number["N"], **layout)
    results = attend(q, k, v, grad_out, scorer=scorer, dilation=number["dilation"], cover_prefix=False, **layout)
    expected = [data[f"{scorer}.o"].transpose(1, 2)]
    expected += [data[f"norm.{name}"] for name in ("dq", "dk", "dv")] if scorer == "norm" else []
    for (name, bound), ours, theirs in zip(GOLDEN_BOUNDS.items(), results, expected):
        assert (ours - theirs).abs().max() <= bound, name


@pytest.mark.parametrize("name", ["grouped", "packed", "dilated", "gla"])
def test_a_given_selection_or_scores_are_those_of_the_scorer(name):
    case, options = CASES[name], CASES[name].options()
    q, k, v, grad_out = case.tensors()
    expected = attend(q, k, v, grad_out, **options)
    scorer = {key: options.pop(key) for key in ("scorer", "dilation", "gate")}
    scores = token_scores(q, k, v, cu_seqlens=case.cu_seqlens, **scorer)
    check_equal(attend(q, k, v, grad_out, scores=scores, **options), expected)
    selection = select(*scores, cover_prefix=True, cu_seqlens=case.cu_seqlens, **case.layout)
    check_equal(attend(q, k, v, grad_out, selection=selection, **options), expected)


def test_packed_documents_equal_separate_calls():
    layout = dict(num_levels=3, pooling_factor=2, topk=8, tile_topk=8)  # one tile: a document's budget is the row's
    bounds = [0, 60, 61, 160]
    q, k, v, grad_out = Case(batch=1, seq_len=160).tensors()
    together = attend(q, k, v, grad_out, cu_seqlens=bounds, **layout)
    for begin, end in zip(bounds, bounds[1:]):
        apart = attend(*(x[:, begin:end] for x in (q, k, v, grad_out)), **layout)
        check_equal([x[:, begin:end] for x in together], apart)


def test_layers_of_a_model_count_rows_of_documents_once(monkeypatch):
    counted = []
    ask = library._ask
    monkeypatch.setattr(library, "_ask", lambda *question: counted.append(question) or ask(*question))
    q, k, v, _ = Case(batch=1, seq_len=163).tensors()
    for _ in range(4):
        lighthouse_attention(q, k, v, num_levels=3, pooling_factor=2, topk=8, tile_topk=8, cu_seqlens=torch.tensor([0, 60, 61, 163]))
    assert len(counted) == 1


def wrong_selections(selection):
    """{mistake: selection}; the one that is given belongs to documents [0, 60) and [60, 64), L = 3, p = 2."""
    wrong = {"reversed": selection.flip(-1), "rolled": selection.roll(1, -1), "sorted": selection.sort(-1)[0].int(),
             "one entry": torch.zeros_like(selection), "counted": torch.arange(selection.shape[2]).int().expand_as(selection)}
    swapped, missing, foreign, twice = (selection.clone() for _ in range(4))
    swapped[..., [3, 4]] = swapped[..., [4, 3]]  # a summary before its last child
    missing[..., -1] = missing[..., -2]  # no last coarsest entry
    foreign[..., 0] = foreign[..., -1]  # an entry of the other document
    twice[:, 1, 7] = twice[:, 1, 6]
    return wrong | {"swapped": swapped, "missing": missing, "foreign": foreign, "twice": twice}


@pytest.mark.parametrize("mistake", ["reversed", "rolled", "sorted", "one entry", "counted", "swapped", "missing", "foreign",
                                     "twice"])
def test_a_selection_that_is_no_forest_is_refused(mistake):
    layout, offsets = dict(num_levels=3, pooling_factor=2, topk=4), [0, 60, 64]
    q, k, v, _ = Case(batch=1, seq_len=64).tensors()
    good = select(*token_scores(q, k, v), cu_seqlens=offsets, **layout)
    call = partial(lighthouse_attention, q, k, v, cu_seqlens=offsets, **layout)
    assert torch.equal(call(selection=good), call())
    assert torch.equal(call(selection=good, check_selection=False), call())
    wrong = wrong_selections(good)[mistake]
    with pytest.raises(ValueError, match=r"selection: \(batch 0, KV head [01], row \d+\) is \d+"):
        call(selection=wrong)
    with pytest.raises(ValueError, match=r"row \d+\) is"):
        lighthouse.LighthouseAttention(**layout)(q, k, v, cu_seqlens=offsets, selection=wrong)
    if mistake not in ("rolled", "sorted", "reversed", "one entry", "counted", "foreign"):  # entries of the wrong document
        assert call(selection=wrong, check_selection=False).shape == q.shape


@pytest.mark.parametrize("make", [list, tuple, torch.tensor, np.array, lambda x: torch.tensor(x, dtype=torch.int32),
                                  lambda x: torch.tensor(x, dtype=torch.uint8), lambda x: np.array(x, np.int32),
                                  lambda x: np.array(x, np.uint16), lambda x: [np.int64(i) for i in x],
                                  lambda x: [torch.tensor(i) for i in x], lambda x: np.repeat(x, 2)[::2],
                                  lambda x: memoryview(np.array(x)), lambda x: np.array(x, ">i4")])
def test_cu_seqlens_of_any_kind(make):
    case = CASES["packed"]
    q, k, v, _ = case.tensors()
    offsets, made = case.cu_seqlens, make(case.cu_seqlens)
    module = lighthouse.LighthouseAttention(**case.layout)
    scores = token_scores(q, k, v, scorer="dilated", cu_seqlens=offsets)

    def results(cu_seqlens):
        module.enabled = False
        dense = module(q, k, v, cu_seqlens=cu_seqlens)
        module.enabled = True
        return [dense, module(q, k, v, cu_seqlens=cu_seqlens), select(*scores, cu_seqlens=cu_seqlens, **case.layout),
                lighthouse_attention(q, k, v, cu_seqlens=cu_seqlens, **case.layout),
                *token_scores(q, k, v, scorer="dilated", cu_seqlens=cu_seqlens)]
    assert all(map(torch.equal, results(made), results(offsets)))
    assert lighthouse.gathered_length(q.shape[1], cu_seqlens=made, **case.layout) == results(offsets)[2].shape[2]


def test_scorers_keep_their_scale():
    case = CASES["dilated"]
    q, k, v, _ = case.tensors()
    scores = token_scores(q, k, v, scorer="dilated", dilation=case.dilation)
    ours = lighthouse_attention(q, k, v, scorer="dilated", dilation=case.dilation, softmax_scale=3.0, **case.layout)
    assert torch.equal(ours, lighthouse_attention(q, k, v, scores=scores, softmax_scale=3.0, **case.layout))
    assert not torch.equal(ours, lighthouse_attention(q, k, v, scores=scores, **case.layout))


@pytest.mark.parametrize("scorer", ["norm", "dilated", "gla"])
def test_a_head_without_a_score_loses_before_the_maximum_of_its_group(scorer):
    case = Case(batch=1, seq_len=64)
    q, k, v, _ = case.tensors()
    gate = -torch.ones(1, 64, 4) if scorer == "gla" else None
    first = token_scores(*(x[:, :, :1] for x in (q, k, v)), scorer=scorer, gate=None if gate is None else gate[:, :, :1])
    q[:, 40:, 1] = torch.nan  # the other head of the group
    scores = token_scores(q, k, v, scorer=scorer, gate=gate)
    assert not any(score.isnan().any() for score in scores)
    assert torch.allclose(scores[0][:, 0, 40:], first[0][:, 0, 40:], rtol=1e-6)
    window = torch.zeros(1, 1, 64)
    window[..., 20], window[..., 21] = torch.nan, 1.0  # as leaves of one window, which is expanded
    assert 21 in select(window, window, num_levels=2, pooling_factor=2, topk=2)


def test_negative_zero_ties_with_zero():
    zeros = torch.zeros(2, 1, 64)
    zeros[0, :, :32] = -0.0
    layout = dict(num_levels=3, pooling_factor=2, topk=6, cover_prefix=False)
    ours, other = select(zeros, zeros, **layout), select(zeros.abs(), zeros.abs(), **layout)
    assert torch.equal(ours, other)


def test_gathered_length_of_documents():
    layout = dict(num_levels=3, pooling_factor=2, topk=4, tile_topk=4)
    alone = [lighthouse.gathered_length(length, **layout) for length in (60, 4)]
    assert lighthouse.gathered_length(64, cu_seqlens=[0, 60, 60, 64], **layout) == sum(alone)
    assert lighthouse.gathered_length(64, cu_seqlens=[0, 64], **layout) == lighthouse.gathered_length(64, **layout)


def test_numbers_of_numpy():
    case = CASES["dilated"]
    q, k, v, _ = case.tensors()
    options = dict(case.layout, scorer="dilated", dilation=3, softmax_scale=0.5, cover_prefix=False)
    kinds = dict.fromkeys(case.layout, np.int64) | dict(dilation=np.uint8, softmax_scale=np.float32, cover_prefix=np.bool_)
    made = {name: kinds[name](value) if name in kinds else value for name, value in options.items()}
    expected = lighthouse_attention(q, k, v, **options)
    assert torch.equal(lighthouse_attention(q, k, v, **made), expected)
    assert torch.equal(lighthouse.LighthouseAttention(**made)(q, k, v), expected)
    layout = {name: made[name] for name in case.layout}
    assert lighthouse.gathered_length(np.int32(q.shape[1]), **layout) == lighthouse.gathered_length(q.shape[1], **case.layout)
    scores = token_scores(q, k, v)
    assert torch.equal(select(*scores, cover_prefix=np.bool_(True), **layout), select(*scores, **case.layout))


def test_attention_of_the_caller():
    case = CASES["packed"]
    q, k, v, grad_out = case.tensors()
    calls = []

    def attention(q_rows, k_rows, v_rows):
        calls.append(q_rows.shape[2])
        return torch.nn.functional.scaled_dot_product_attention(q_rows, k_rows, v_rows, is_causal=True, enable_gqa=True)

    ours = attend(q, k, v, grad_out, attention=attention, cu_seqlens=case.cu_seqlens, **case.layout)
    check_equal(ours, attend(q, k, v, grad_out, cu_seqlens=case.cu_seqlens, **case.layout))
    assert len(calls) == 4  # of five documents one has no token


@pytest.mark.parametrize("name", ["full", "full-packed", "one-token"])
def test_calls_that_would_not_get_shorter_are_plain_causal_attention(name):
    case = CASES[name]
    tensors, options = case.tensors(), case.options()
    module = lighthouse.LighthouseAttention(**case.layout)
    module.enabled = False  # stage two
    check_equal(attend(*tensors, **options), results_of(partial(module, cu_seqlens=case.cu_seqlens), *tensors))
    with OperatorNames() as called:
        attend(*tensors, **options)
    assert called.names and not [operator for operator in called.names if operator.startswith("lighthouse::")]
    seen = []

    def attention(q, k, v):
        seen.append(q.untyped_storage().data_ptr())
        return torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)

    check_equal([lighthouse_attention(*tensors[:3], attention=attention, **options)], attend(*tensors, **options))
    assert set(seen) == {tensors[0].untyped_storage().data_ptr()}  # nothing was gathered


class OperatorNames(torch.utils._python_dispatch.TorchDispatchMode):
    """The operators that are called."""

    def __init__(self):
        super().__init__()
        self.names = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.names.add(function.name())
        return function(*args, **(kwargs or {}))


def test_what_is_selected_of_rows_that_would_not_get_shorter():
    """Select, gather and scatter of such calls are the identity, whatever the scores are."""
    case = CASES["full-packed"]
    q, k, v, _ = case.tensors()
    nothing = torch.full((1, 2, case.seq_len), torch.nan)
    layout = [case.layout[name] for name in ("num_levels", "pooling_factor", "topk", "tile_topk")]
    selection, slots = torch.ops.lighthouse._select_entries(nothing, nothing, layout, True, case.cu_seqlens)
    assert slots.equal(torch.arange(case.seq_len, dtype=torch.int32).expand(1, 2, -1))
    # Entries count over whole pyramids: documents of 1, 69, 80 and 53 tokens have 1, 18, 20 and 14 coarsest ones of four.
    entries = [begin + i for length, begin in ((1, 0), (69, 7), (80, 7 + 126), (53, 7 + 126 + 140)) for i in range(length)]
    assert selection[0, 0].tolist() == entries
    rows = torch.ops.lighthouse._gather_rows(q, k, v, selection, slots, layout, case.cu_seqlens)
    assert all(row.equal(x.transpose(1, 2)) for row, x in zip(rows, (q, k, v)))
    assert torch.ops.lighthouse._scatter_rows(rows[0], selection, slots, case.seq_len, layout, case.cu_seqlens).equal(q)


@pytest.mark.parametrize("name", ["grouped", "packed", "gla"])
def test_any_number_of_threads_gives_the_same_bits(name):
    """Without stock attention, which lays out its scratch by the number of threads."""
    case, threads = CASES[name], torch.get_num_threads()
    tensors, options = case.tensors(), case.options()
    results = []
    for num_threads in (1, 2, 3):
        torch.set_num_threads(num_threads)
        results.append(attend(*tensors, attention=lambda q, k, v: q * (k + v).repeat_interleave(q.shape[1] // k.shape[1], 1), **options))
    torch.set_num_threads(threads)
    check_equal(results[1], results[0])
    check_equal(results[2], results[0])


def test_no_gradient_no_graph():
    case = CASES["grouped"]
    q, k, v, _ = case.tensors()
    q.requires_grad_()
    with torch.no_grad():
        assert not lighthouse_attention(q, k, v, **case.layout).requires_grad
    with torch.inference_mode():
        lighthouse_attention(q, k, v, **case.layout)
    assert not any(score.requires_grad for score in token_scores(q, k, v))
    only_q = lighthouse_attention(q, k, v, **case.layout)
    assert torch.autograd.grad(only_q.sum(), q)[0].shape == q.shape


def test_second_derivatives_of_the_linear_maps():
    case = Case(batch=1, seq_len=13, num_heads=2, num_kv_heads=1, head_dim=2)
    q, k, v, _ = (x.requires_grad_() for x in case.tensors(torch.float64))
    layout = list(case.layout.values())
    ops = torch.ops.lighthouse
    selection, slots = ops._gather_by_norm(q, k, v, layout, True, None)[3:]
    assert torch.autograd.gradgradcheck(lambda *qkv: ops._gather_rows(*qkv, selection, slots, layout, None), (q, k, v))
    rows = ops._gather_rows(q, k, v, selection, slots, layout, None)[0].detach().requires_grad_()
    assert torch.autograd.gradgradcheck(lambda x: ops._scatter_rows(x, selection, slots, 13, layout, None), rows)


def test_autocast_casts_as_attention_does():
    case = CASES["grouped"]
    q, k, v, grad_out = case.tensors()
    with torch.autocast("cpu", torch.bfloat16):
        ours = attend(q, k, v, grad_out.bfloat16(), **case.layout)
    rounded = attend(*(x.bfloat16() for x in (q, k, v, grad_out)), **case.layout)
    check_equal([x.bfloat16() for x in ours], rounded)
    assert ours[0].dtype == torch.bfloat16 and ours[1].dtype == torch.float32


def test_vmap_is_a_larger_batch():
    case = Case(batch=3)
    q, k, v, _ = case.tensors()
    expected = lighthouse_attention(q, k, v, **case.layout)

    def one(q, k, v):
        return lighthouse_attention(q[None], k[None], v[None], **case.layout)[0]

    assert torch.equal(torch.func.vmap(one)(q, k, v), expected)


def test_func_grad_says_what_to_use_instead():
    case = CASES["grouped"]
    loss = lambda *qkv: lighthouse_attention(*qkv, **case.layout).sum()  # noqa: E731
    with pytest.raises(NotImplementedError, match="torch.func.grad.*use torch.autograd.grad"):
        torch.func.grad(loss)(*case.tensors()[:3])
    with pytest.raises(NotImplementedError, match="torch.func.jvp"):
        torch.func.jvp(loss, case.tensors()[:3], case.tensors()[:3])


def test_later_tokens_do_not_move_earlier_outputs_of_a_held_selection():
    case = CASES["grouped"]
    q, k, v, _ = case.tensors()
    selection = select(*token_scores(q, k, v), **case.layout)
    before = lighthouse_attention(q, k, v, selection=selection, **case.layout)
    moved = [torch.cat([x[:, :101], x[:, 101:] + 1], 1) for x in (q, k, v)]
    after = lighthouse_attention(*moved, selection=selection, **case.layout)
    assert torch.equal(before[:, :101], after[:, :101])
    assert not torch.equal(before[:, 101:], after[:, 101:])

"""The functions: the bits of the C++ operators, the authors' results, and what the documentation promises."""

from functools import partial
from pathlib import Path

import pytest
import torch
from attention_cases import CASES, Case, check_equal, results_of
from cpp_operators import run_cpp_operators
from safetensors import safe_open

lighthouse = pytest.importorskip("lighthouse_attention")
lighthouse_attention, select, token_scores = lighthouse.lighthouse_attention, lighthouse.select, lighthouse.token_scores
GOLDEN = Path(__file__).parents[1] / "golden"


def attend(q, k, v, grad_out, **options):
    """Output and gradients."""
    return results_of(partial(lighthouse_attention, **options), q, k, v, grad_out)


DTYPES = {"plain": [torch.float64, torch.float32, torch.bfloat16, torch.float16], "packed": [torch.float32, torch.bfloat16]}
RUNS = [(name, dtype) for name in CASES for dtype in DTYPES.get(name, [torch.float32])]


@pytest.fixture(scope="module")
def cpp_results(build_folder, tmp_path_factory):
    """{(case, dtype): results of torch.ops.lighthouse.attention of the C++ library}."""
    cases = []
    for name, dtype in RUNS:
        options = CASES[name].options()
        s_qk, s_kq = options.pop("scores", (None, None))
        cases.append(("attention", *CASES[name].tensors(dtype), dict(options, s_qk=s_qk, s_kq=s_kq)))
        if dtype == torch.float32 and not CASES[name].given:
            score_options = {key: options[key] for key in ("scorer", "dilation", "gate", "cu_seqlens")}
            cases.append(("token_scores", *CASES[name].tensors(dtype), score_options))
    results = iter(run_cpp_operators(build_folder, tmp_path_factory.mktemp("cpp"), cases))
    by_case = {}
    for name, dtype in RUNS:
        by_case[name, dtype] = next(results)
        if dtype == torch.float32 and not CASES[name].given:
            by_case[name, "scores"] = next(results)
    return by_case


@pytest.mark.parametrize(("name", "dtype"), RUNS, ids=str)
def test_bits_of_the_cpp_operators(cpp_results, name, dtype):
    check_equal(attend(*CASES[name].tensors(dtype), **CASES[name].options()), cpp_results[name, dtype])


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if not case.given])
def test_scores_of_the_cpp_operators(cpp_results, name):
    options = CASES[name].options()
    scores = token_scores(*CASES[name].tensors()[:3], **{key: options[key] for key in ("scorer", "dilation", "gate",
                                                                                      "cu_seqlens")})
    assert all(map(torch.equal, scores, cpp_results[name, "scores"]))


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


@pytest.mark.parametrize("make", [list, tuple, torch.tensor, lambda x: torch.tensor(x, dtype=torch.int32)])
def test_cu_seqlens_of_any_kind(make):
    case = CASES["packed"]
    q, k, v, _ = case.tensors()
    expected = lighthouse_attention(q, k, v, cu_seqlens=case.cu_seqlens, **case.layout)
    assert torch.equal(lighthouse_attention(q, k, v, cu_seqlens=make(case.cu_seqlens), **case.layout), expected)


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

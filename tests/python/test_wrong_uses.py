"""One table of wrong uses, through every function and module that takes them: the same fault is said in the same words."""

import numpy as np
import pytest
import torch
import torch.autograd.forward_ad as forward_ad
import lighthouse_attention as lighthouse
from lighthouse_attention.module import dense_attention

LAYOUT = dict(num_levels=3, pooling_factor=2, topk=10)


def tensors(seq_len=64, num_heads=4, num_kv_heads=2, head_dim=24, batch=1, dtype=torch.float32, device="cpu"):
    generator = torch.Generator().manual_seed(1)
    heads = dict(q=num_heads, k=num_kv_heads, v=num_kv_heads)
    return {name: torch.randn(batch, seq_len, count, head_dim, generator=generator).to(device, dtype) for name, count in heads.items()}


def disabled(module):
    module.enabled = False
    return module


def lighthouse_with(**options):
    return lambda **given: lighthouse.lighthouse_attention(**(LAYOUT | options | given))


SCORES = torch.zeros(1, 2, 64)
STAGE_ONE = {
    "stage one": lighthouse_with(),
    "stage one, dilated": lighthouse_with(scorer="dilated"),
    "stage one, scores": lighthouse_with(scores=(SCORES, SCORES)),
    "a row in full": lighthouse_with(topk=64),
}
STAGE_TWO = {
    "dense_attention": dense_attention,
    "stage two": disabled(lighthouse.LighthouseAttention(**LAYOUT)),
    "a window": lighthouse.SlidingWindowAttention(8),
    "a window of all tokens": lighthouse.SlidingWindowAttention(64),
    "a window in stage two": disabled(lighthouse.SlidingWindowAttention(8)),
}
ATTENTION = STAGE_ONE | STAGE_TWO
SCORED = {
    "token_scores": lighthouse.token_scores,
    "token_scores, dilated": lambda **given: lighthouse.token_scores(**given, scorer="dilated"),
}
NAMES = {name: "lighthouse_attention: " for name in STAGE_ONE} | {name: "dense_attention: " for name in STAGE_TWO} | {
    name: "token_scores: " for name in SCORED}

INPUTS = {  # changed tensors: what the message must say
    "k of another length": (dict(k=tensors(50)["k"]), ["k has shape [1, 50, 2, 24]", "q has [1, 64, 4, 24]", "(dimension 2) only"]),
    "k and v of another length": (dict(k=tensors(50)["k"], v=tensors(50)["v"]), ["k has shape [1, 50, 2, 24]", "(dimension 2) only"]),
    "v of another length": (dict(v=tensors(50)["v"]), ["v has shape [1, 50, 2, 24]", "k has [1, 64, 2, 24]", "must be equal"]),
    "v of one token": (dict(v=tensors(1)["v"]), ["v has shape [1, 1, 2, 24]", "must be equal"]),
    "v of other heads": (dict(v=tensors(num_kv_heads=4)["v"]), ["v has shape [1, 64, 4, 24]", "must be equal"]),
    "v of other channels": (dict(v=tensors(head_dim=8)["v"]), ["v has shape [1, 64, 2, 8]", "must be equal"]),
    "k and v of other channels": (dict(k=tensors(head_dim=8)["k"], v=tensors(head_dim=8)["v"]), ["k has shape [1, 64, 2, 8]"]),
    "another batch": (dict(q=tensors(batch=2)["q"]), ["k has shape [1, 64, 2, 24]", "q has [2, 64, 4, 24]"]),
    "heads": (tensors(num_kv_heads=3), ["num_heads 4 is not a multiple of num_kv_heads 3"]),
    "no tokens": (tensors(0), ["the sequence has 0 tokens", "between 1 and 2147483647"]),
    "no batch": (tensors(batch=0), ["q has shape [0, 64, 4, 24]", "no size zero"]),
    "no heads": (tensors(num_kv_heads=0), ["k has shape [1, 64, 0, 24]", "no size zero"]),
    "dtype of v": (dict(v=tensors(dtype=torch.float16)["v"]), ["v is ", "but q is ", "one dtype"]),
    "dtype of k": (dict(k=tensors(dtype=torch.float64)["k"]), ["k is ", "but q is ", "one dtype"]),
    "integers": (tensors(dtype=torch.int64), ["q is ", "; it must be "]),
    "complex": (tensors(dtype=torch.complex64), ["q is ", "; it must be "]),
    "no tensor": (dict(q=None), ["q is a NoneType; it must be a tensor [batch, seq_len, num_heads, head_dim]"]),
    "an array": (dict(k=np.zeros((1, 64, 2, 24), np.float32)), ["k is a ndarray; it must be a tensor"]),
    "three dimensions": (dict(q=tensors()["q"][0]), ["q has 3 dimensions"]),
    "another device": (dict(v=tensors(device="meta")["v"]), ["v is on meta, but q is on cpu"]),
    "sparse": (dict(k=tensors()["k"].to_sparse()), ["k has layout torch.sparse_coo; pass k.to_dense()"]),
    "quantized": (dict(q=torch.quantize_per_tensor(tensors()["q"], 0.1, 0, torch.qint8)), ["q is torch.qint8; pass q.dequantize()"]),
    "channels": (dict(v=torch.zeros(1, 64, 2, 48)[..., ::2]), ["channels of v have stride 2", "pass v.contiguous()"]),
}


def refused(call, *parts, error=ValueError):
    with pytest.raises(error) as raised:
        call()
    assert all(part in str(raised.value) for part in parts), raised.value


@pytest.mark.parametrize("entry", ATTENTION | SCORED)
@pytest.mark.parametrize(("changed", "parts"), INPUTS.values(), ids=INPUTS)
def test_tensors(entry, changed, parts):
    refused(lambda: (ATTENTION | SCORED)[entry](**(tensors() | changed)), NAMES[entry], *parts)


@pytest.mark.parametrize("entry", ATTENTION | SCORED)
def test_what_is_right_is_taken(entry):
    (ATTENTION | SCORED)[entry](**tensors())
    (ATTENTION | SCORED)[entry](**tensors(dtype=torch.bfloat16))


COMPILED = ["stage one", "stage one, dilated", "a row in full", "dense_attention", "a window", "a window of all tokens"]


@pytest.mark.parametrize("entry", COMPILED)
@pytest.mark.parametrize("name", ["v of another length", "heads", "k and v of other channels", "dtype of v"])
def test_tensors_in_a_compiled_function(entry, name):
    changed, parts = INPUTS[name]
    compiled(ATTENTION[entry], (tensors() | changed), NAMES[entry], *parts)


def compiled(function, given, *parts):
    """Torch has types of its own for what fails while it traces."""
    torch.compiler.reset()
    refused(lambda: torch.compile(function, fullgraph=True, backend="aot_eager")(**given), *parts, error=Exception)


@pytest.mark.parametrize("name", ["v of another length", "heads"])
@pytest.mark.parametrize("entry", ["stage one", "dense_attention", "stage two", "a window in stage two"])
def test_tensors_of_compiled_documents(entry, name):
    changed, parts = INPUTS[name]
    compiled(ATTENTION[entry], tensors() | changed | dict(cu_seqlens=torch.tensor([0, 40, 64])), NAMES[entry], *parts)


SCALES = [-1, 0, -0.5, float("nan"), float("inf"), True, "x", "0.1", 1j, [1], 10**400, torch.tensor([1.0, 2.0]), np.array([1.0, 2.0])]
SCALED = {
    "lighthouse_attention": lambda scale: lighthouse_with(softmax_scale=scale)(**tensors()),
    "lighthouse_attention of a row in full": lambda scale: lighthouse_with(softmax_scale=scale, topk=64)(**tensors()),
    "dense_attention": lambda scale: dense_attention(**tensors(), softmax_scale=scale),
    "LighthouseAttention": lambda scale: lighthouse.LighthouseAttention(**LAYOUT, softmax_scale=scale),
    "SlidingWindow": lambda scale: lighthouse.SlidingWindow(8, scale),
    "SlidingWindowAttention": lambda scale: lighthouse.SlidingWindowAttention(8, softmax_scale=scale),
}


@pytest.mark.parametrize("entry", SCALED)
@pytest.mark.parametrize("scale", SCALES, ids=lambda scale: str(scale)[:20])
def test_scales(entry, scale):
    refused(lambda: SCALED[entry](scale), "softmax_scale is ", "positive and finite, or left out")


@pytest.mark.parametrize("entry", SCALED)
@pytest.mark.parametrize("scale", [0.3, 1, np.float32(0.3), torch.tensor(0.3)], ids=repr)
def test_scales_that_are_taken(entry, scale):
    SCALED[entry](scale)


@pytest.mark.parametrize("scale", [-1.0, "x", True])
def test_scales_in_a_compiled_function(scale):
    for function in (lighthouse_with(softmax_scale=scale), lambda **given: dense_attention(**given, softmax_scale=scale)):
        compiled(function, tensors(), "softmax_scale is ", "positive and finite")


OWN = dict(attention=lambda q, k, v: q)
OPTIONS = {  # of lighthouse_attention, dense_attention and LighthouseAttention
    "two scales": (dict(OWN, softmax_scale=0.3), ["softmax_scale is 0.3, but `attention` is given", "leave one out"]),
    "a number as attention": (dict(attention=5), ["attention is a int; it must be callable(q, k, v)"]),
    "a name as attention": (dict(attention="sdpa"), ["attention is a str; it must be callable(q, k, v)"]),
}


@pytest.mark.parametrize(("options", "parts"), OPTIONS.values(), ids=OPTIONS)
def test_options(options, parts):
    refused(lambda: lighthouse_with(**options)(**tensors()), "lighthouse_attention: ", *parts)
    refused(lambda: lighthouse_with(topk=64, **options)(**tensors()), "lighthouse_attention: ", *parts)
    refused(lambda: dense_attention(**tensors(), **options), "dense_attention: ", *parts)
    refused(lambda: lighthouse.LighthouseAttention(**LAYOUT, **options), "LighthouseAttention: ", *parts)


def test_a_window_beside_a_scale():
    refused(lambda: dense_attention(**tensors(), softmax_scale=0.3, attention=lighthouse.SlidingWindow(8)), "leave one out")
    documents = dict(cu_seqlens=torch.tensor([0, 64]), softmax_scale=0.3, attention=lighthouse.SlidingWindow(8))
    compiled(dense_attention, tensors() | documents, "leave one out")


@pytest.mark.parametrize("value", ["yes", None, 1, 0, 2.5, [], torch.tensor([True, False])], ids=str)
def test_what_must_be_true_or_false(value):
    for function in (lighthouse_with(cover_prefix=value), lighthouse_with(cover_prefix=value, topk=64)):
        refused(lambda: function(**tensors()), "lighthouse_attention: cover_prefix is ", "it must be True or False")
    refused(lambda: lighthouse.select(SCORES, SCORES, **LAYOUT, cover_prefix=value), "select: cover_prefix is ")
    refused(lambda: lighthouse.LighthouseAttention(**LAYOUT, cover_prefix=value), "LighthouseAttention: cover_prefix is ")
    selection = lighthouse.select(SCORES, SCORES, **LAYOUT)
    refused(lambda: lighthouse_with(selection=selection, check_selection=value)(**tensors()), "check_selection is ")


def test_booleans_of_other_kinds():
    expected = lighthouse_with(cover_prefix=False)(**tensors())
    for value in (np.bool_(False), torch.tensor(False)):
        assert torch.equal(lighthouse_with(cover_prefix=value)(**tensors()), expected)
    assert lighthouse.LighthouseAttention(**LAYOUT, cover_prefix=np.bool_(False)).options["cover_prefix"] is False


@pytest.mark.parametrize("value", [True, np.bool_(True), torch.tensor(True)], ids=repr)
def test_booleans_are_no_integers(value):
    for name in ("topk", "num_levels", "pooling_factor", "tile_topk"):
        refused(lambda: lighthouse_with(**{name: value})(**tensors()), f"{name} is ", "it must be an integer")
        refused(lambda: lighthouse.gathered_length(64, **(LAYOUT | {name: value})), f"{name} is ", "it must be an integer")
    refused(lambda: lighthouse_with(scorer="dilated", dilation=value)(**tensors()), "dilation is ")
    refused(lambda: lighthouse.SlidingWindow(value), "SlidingWindow: span is ")
    refused(lambda: lighthouse.gathered_length(value, **LAYOUT), "seq_len is ")


@pytest.mark.parametrize("value", [4.5, "8", True, None, np.int64(8)], ids=repr)
def test_integers_of_a_compiled_function(value):
    compiled(lighthouse_with(topk=value), tensors(), "lighthouse_attention: topk is ", "integer")


def test_offsets_without_values():
    given = tensors()
    for function in (lighthouse_with(), dense_attention, lighthouse.token_scores):
        refused(lambda: function(**given, cu_seqlens=torch.tensor([0, 64], device="meta")), "cu_seqlens is on meta", "pass a list")
        refused(lambda: function(**given, cu_seqlens=torch.tensor([0, 64]).to_sparse()), "cu_seqlens has layout", "to_dense()")
    compiled(lighthouse_with(cu_seqlens=np.array([0, 64])), given, "cu_seqlens is a ", "pass a list")


def test_shard_offsets_of_no_group():
    for function in (lighthouse_with(), dense_attention, STAGE_TWO["a window"]):
        refused(lambda: function(**tensors(), shard_offsets=[0, 64]), "shard_offsets are given, but no group")


def test_an_attention_that_leaves_the_device():
    for function in (lighthouse_with(), dense_attention):
        refused(lambda: function(**tensors(), attention=lambda q, k, v: q.to("meta")), "is on meta, but it was given tensors on cpu")


def test_a_window_alone_checks_its_shapes():
    q, k, v = (x.transpose(1, 2) for x in tensors().values())
    for attention in (lighthouse.SlidingWindow(8), lighthouse.SlidingWindow(64)):
        refused(lambda: attention(q, k, v[:, :, :50]), "SlidingWindow: q has shape [1, 4, 64, 24]", "v [1, 2, 50, 24]")
        refused(lambda: attention(q, k[:, :, :50], v[:, :, :50]), "SlidingWindow: q has shape")


def test_a_model_that_is_none():
    for model in (None, "folder"):
        refused(lambda: lighthouse.switch_to_dense(model), f"switch_to_dense: model is a {type(model).__name__}")


# Derivatives that the operators do not have are refused, not left out.


@pytest.mark.parametrize("entry", STAGE_ONE)
@pytest.mark.parametrize("name", ["q", "k", "v"])
def test_forward_mode(entry, name):
    given = tensors(dtype=torch.float64) if entry == "stage one" else tensors()
    with forward_ad.dual_level():
        STAGE_ONE[entry](**given)
        dual = forward_ad.make_dual(given[name], torch.ones_like(given[name]))
        refused(lambda: STAGE_ONE[entry](**(given | {name: dual})), "lighthouse_attention: forward-mode", error=NotImplementedError)


def test_forward_mode_of_an_attention_with_parameters():
    with forward_ad.dual_level():
        scale = forward_ad.make_dual(torch.tensor(2.0), torch.tensor(1.0))
        refused(lambda: lighthouse_with(attention=lambda q, k, v: q * scale)(**tensors()), "forward-mode", error=NotImplementedError)


def of_v(function=lighthouse_with()):
    given = tensors()
    return given["v"], lambda v: function(**(given | dict(v=v)))


def test_linearize():
    v, function = of_v()
    refused(lambda: torch.func.linearize(function, v), "torch.func.linearize", error=NotImplementedError)


@pytest.mark.parametrize("transform", ["jvp", "grad"])
@pytest.mark.parametrize("documents", [None, torch.tensor([0, 40, 64])], ids=["", "documents"])
def test_transforms_in_a_compiled_function(transform, documents):
    v, function = of_v(lighthouse_with(cu_seqlens=documents))
    run = dict(jvp=lambda v: torch.func.jvp(function, (v,), (v,))[1], grad=torch.func.grad(lambda v: function(v).sum()))[transform]
    torch.compiler.reset()
    refused(lambda: torch.compile(run, fullgraph=True, backend="aot_eager")(v), f"torch.func.{transform} is not supported", error=Exception)
    torch.compiler.reset()
    vmapped = torch.func.vmap(of_v()[1])
    assert torch.equal(torch.compile(vmapped, backend="aot_eager")(v[None]), vmapped(v[None]))


def test_forward_mode_around_a_compiled_function():
    torch.compiler.reset()
    v, function = of_v()
    run = torch.compile(function, fullgraph=True, backend="aot_eager")
    expected = run(v)
    with forward_ad.dual_level():
        refused(lambda: run(forward_ad.make_dual(v, v)), "forward-mode", error=Exception)
    assert torch.equal(run(v), expected)


def test_vmap_with_a_selection_that_is_not_mapped():
    given = tensors()
    function = lighthouse_with(selection=lighthouse.select(*lighthouse.token_scores(**given), **LAYOUT))
    out = torch.func.vmap(lambda q: function(**(given | dict(q=q))))(torch.stack([given["q"], given["q"] * 2]))
    torch.testing.assert_close(out[1], function(**(given | dict(q=given["q"] * 2))))


# Meta tensors: shapes only.


@pytest.mark.parametrize("entry", ATTENTION | SCORED)
@pytest.mark.parametrize("offsets", [None, [0, 40, 64]])
def test_meta_tensors(entry, offsets):
    if entry == "stage one, scores":
        function = lighthouse_with(scores=(SCORES.to("meta"), SCORES.to("meta")))
    else:
        function = (ATTENTION | SCORED)[entry]
    given = {name: x.requires_grad_() for name, x in tensors(device="meta").items()}
    out = function(**given, cu_seqlens=offsets)
    if entry in SCORED:
        assert all(score.is_meta and score.shape == (1, 2, 64) for score in out)
        return
    assert out.is_meta and out.shape == given["q"].shape
    out.sum().backward()
    assert all(x.grad.is_meta and x.grad.shape == x.shape for x in given.values())


@pytest.mark.parametrize("entry", ["a window", "a window of all tokens", "dense_attention"])
def test_windows_under_autocast(entry):
    """As PyTorch's own attention they are given tensors of autocast's dtype."""
    with torch.autocast("cpu", torch.bfloat16):
        out = ATTENTION[entry](**tensors())
    assert torch.equal(out, ATTENTION[entry](**tensors(dtype=torch.bfloat16)))

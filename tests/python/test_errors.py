"""Wrong arguments: ValueError, and a message that names the value and what would do."""

import functools

import numpy as np
import pytest
import torch
from attention_cases import Case, flat
import lighthouse_attention as lighthouse

LAYOUT = dict(num_levels=3, pooling_factor=2, topk=10)
TENSORS = dict(zip("qkv", Case(batch=1, seq_len=64).tensors()[:3]))
SCORES = torch.zeros(1, 2, 64)
GOOD = lighthouse.select(SCORES, SCORES, **LAYOUT)

ATTENTION = {  # changed arguments: what the message must say
    "rank": (dict(q=torch.zeros(1, 64, 8)), ["q has 3 dimensions", r"[batch, seq_len, num_heads, head_dim]"]),
    "no_tensor": (dict(k=[1.0]), ["k is a list", "must be a tensor"]),
    "empty": (dict(q=torch.zeros(1, 64, 0, 24)), ["[1, 64, 0, 24]", "no size zero"]),
    "seq_len": (dict(k=torch.zeros(1, 63, 2, 24)), ["k has shape [1, 63, 2, 24]", "q has [1, 64, 4, 24]", "number of heads"]),
    "v_shape": (dict(v=torch.zeros(1, 64, 4, 24)), ["v has shape [1, 64, 4, 24]", "k has [1, 64, 2, 24]", "equal"]),
    "groups": (dict(q=torch.zeros(1, 64, 3, 24)), ["num_heads 3 is not a multiple of num_kv_heads 2"]),
    "dtypes": (dict(k=torch.zeros(1, 64, 2, 24, dtype=torch.float64)), ["k is Double", "q is Float", "one dtype"]),
    "integers": ({name: x.int() for name, x in TENSORS.items()}, ["q is Int", "Float, Double, BFloat16 or Half"]),
    "sparse": (dict(q=TENSORS["q"].to_sparse()), ["layout torch.sparse", "to_dense"]),
    "device": (dict(k=TENSORS["k"].to("meta")), ["k is on meta", "q is on cpu", "one device"]),
    "channels": (dict(q=torch.zeros(1, 64, 24, 4).transpose(2, 3)), ["channels of q have stride 4", "q.contiguous()"]),
    "num_levels": (dict(num_levels=9), ["num_levels is 9", "between 1 (plain attention) and 8"]),
    "pooling_factor": (dict(pooling_factor=3), ["pooling_factor is 3", "2, 4, 8 or 16"]),
    "topk": (dict(topk=0), ["topk is 0", "between 1 and 2147483647"]),
    "tile_topk": (dict(tile_topk=-1), ["tile_topk is -1", "between 1"]),
    "scorer": (dict(scorer="norms"), ["scorer is 'norms'", "norm, dilated or gla"]),
    "dilation": (dict(scorer="dilated", dilation=0), ["dilation is 0", "at least 1"]),
    "no_gate": (dict(scorer="gla"), ["no gate is given", "[batch, seq_len, num_heads]"]),
    "gate": (dict(gate=torch.zeros(1, 64, 4)), ["a gate is given, but scorer is 'norm'", "only scorer 'gla'"]),
    "gate_shape": (dict(scorer="gla", gate=torch.zeros(1, 64, 2)), ["gate has shape [1, 64, 2]", "here [1, 64, 4]"]),
    "gate_integers": (dict(scorer="gla", gate=torch.zeros(1, 64, 4).int()), ["gate is torch.int32", "floating point"]),
    "gate_and_scores": (dict(scorer="gla", gate=torch.zeros(1, 64, 4), scores=(SCORES, SCORES)), ["scores too", "leave one"]),
    "scores": (dict(scores=SCORES), ["scores is a Tensor", "pair (s_qk, s_kq)"]),
    "scores_shape": (dict(scores=(SCORES[:, :1], SCORES)), ["s_qk has shape [1, 1, 64]", "here [1, 2, 64]"]),
    "scores_dtype": (dict(scores=(SCORES.double(), SCORES)), ["s_qk is Double", "torch.float32"]),
    "softmax_scale": (dict(softmax_scale=-1.0), ["softmax_scale is -1.0", "positive and finite"]),
    "two_scales": (dict(softmax_scale=1.0, attention=lambda q, k, v: q), ["softmax_scale is 1.0", "leave one out"]),
    "selection_shape": (dict(selection=torch.zeros(1, 2, 5, dtype=torch.int32)), ["selection has shape [1, 2, 5]"]),
    "selection_dtype": (dict(selection=torch.zeros(1, 2, 56)), ["selection is Float", "torch.int32"]),
    "selection_twice": (dict(selection=torch.zeros(1, 2, 56, dtype=torch.int32)), [
        "row 1) is 0 (level 0, entry 0)", "after row 0, 0 (level 0, entry 0)", "it must be a leaf", "1 (level 0, entry 1)"]),
    "selection_range": (dict(selection=torch.full((1, 2, 56), 112, dtype=torch.int32)), ["row 0) is 112"]),
    "selection_order": (dict(selection=GOOD.flip(-1)), ["row 0) is 111 (level 2, entry 15)", "leaf that begins at token 0",
                                                        "the order of rows carries causality"]),
    "selection_batch": (dict(selection=GOOD.repeat(2, 1, 1)), ["selection has shape [2, 2, 56]", "here [1, 2, 56]"]),
    "selection_heads": (dict(selection=GOOD[:, :1].contiguous()), ["selection has shape [1, 1, 56]", "here [1, 2, 56]"]),
    "cu_seqlens_start": (dict(cu_seqlens=[1, 64]), ["cu_seqlens starts at 1", "must start at 0"]),
    "cu_seqlens_end": (dict(cu_seqlens=[0, 63]), ["cu_seqlens ends at 63", "has 64 tokens"]),
    "cu_seqlens_order": (dict(cu_seqlens=[0, 40, 30, 64]), ["decreases from 40 to 30 at position 2"]),
    "cu_seqlens_empty": (dict(cu_seqlens=[]), ["cu_seqlens has 0 elements"]),
    "cu_seqlens_floats": (dict(cu_seqlens=torch.zeros(2)), ["cu_seqlens is a torch.float32 tensor", "integers"]),
    "cu_seqlens_batch": ({name: x.repeat(2, 1, 1, 1) for name, x in TENSORS.items()} | dict(cu_seqlens=[0, 64]),
                         ["with batch 2", "need batch 1"]),
    "attention_type": (dict(attention=lambda q, k, v: None), ["result of `attention` is a NoneType"]),
    "attention_shape": (dict(attention=lambda q, k, v: q[:, :1]), ["result of `attention` has shape [1, 1, ", "here [1, 4, "]),
    "attention_dtype": (dict(attention=lambda q, k, v: q.double()), ["is torch.float64", "cast it"]),
}


PYTHON = {  # the same for what an operator cannot be given
    "selection_array": (dict(selection=GOOD.numpy()), ["selection is a ndarray", "must be a tensor", "int32"]),
    "scores_array": (dict(scores=(SCORES.numpy(), SCORES)), ["s_qk is a ndarray", "must be a tensor"]),
    "selection_elsewhere": (dict(selection=GOOD.to("meta")), ["selection is on meta", "q is on cpu"]),
    "selection_sparse": (dict(selection=GOOD.to_sparse()), ["selection has layout torch.sparse_coo", "to_dense()"]),
    "scores_elsewhere": (dict(scores=(SCORES, SCORES.to("meta"))), ["s_kq is on meta", "q is on cpu"]),
    "gate_elsewhere": (dict(scorer="gla", gate=torch.zeros(1, 64, 4, device="meta")), ["gate is on meta", "q is on cpu"]),
    "masked_array": (dict(cu_seqlens=np.ma.array([0, 40, 64], mask=[0, 1, 0])), ["cu_seqlens is [0, None, 64]", "integers"]),
    "gate_array": (dict(scorer="gla", gate=np.zeros((1, 64, 4))), ["gate is a ndarray", "floating point tensor"]),
    "floats": (dict(cu_seqlens=np.array([0.0, 64.0])), ["cu_seqlens is a float64 array of shape [2]", "integers"]),
    "list_of_floats": (dict(cu_seqlens=[0, 64.0]), ["cu_seqlens is [0, 64.0]", "integers"]),
    "text": (dict(cu_seqlens="0,64"), ["cu_seqlens is '0,64'", "integers"]),
    "number": (dict(cu_seqlens=64), ["cu_seqlens is 64", "a list, an array"]),
    "matrix": (dict(cu_seqlens=np.array([[0, 64]])), ["array of shape [1, 2]", "1-dimensional"]),
    "scalar": (dict(cu_seqlens=np.array(64)), ["array of shape []", "1-dimensional"]),
    "matrix_tensor": (dict(cu_seqlens=torch.tensor([[0, 64]])), ["tensor of shape [1, 2]", "1-dimensional"]),
    "booleans": (dict(cu_seqlens=torch.tensor([False, True])), ["cu_seqlens is a torch.bool tensor", "integers"]),
    "array_of_booleans": (dict(cu_seqlens=np.array([False, True])), ["cu_seqlens is a bool array", "integers"]),
    "decreasing": (dict(cu_seqlens=np.array([0, 40, 30, 64])), ["decreases from 40 to 30"]),
    "topk": (dict(topk=2.5), ["topk is 2.5", "must be an integer"]),
    "num_levels": (dict(num_levels="3"), ["num_levels is '3'", "must be an integer"]),
    "dilation": (dict(scorer="dilated", dilation=2.0), ["dilation is 2.0", "must be an integer"]),
}


@pytest.mark.parametrize(("changed", "parts"), PYTHON.values(), ids=PYTHON)
def test_attention_of_python_objects(changed, parts):
    check(lambda: lighthouse.lighthouse_attention(**(TENSORS | LAYOUT | changed)), *parts)


@pytest.mark.parametrize("name", ["rank", "no_tensor", "empty", "seq_len", "v_shape", "groups", "channels", "device", "sparse",
                                  "num_levels", "pooling_factor", "tile_topk", "scorer", "dilation", "no_gate", "gate",
                                  "gate_shape", "gate_and_scores", "scores", "scores_shape", "softmax_scale", "two_scales", "cu_seqlens_start",
                                  "cu_seqlens_end", "cu_seqlens_order", "cu_seqlens_empty", "cu_seqlens_batch",
                                  "attention_type", "attention_shape", "attention_dtype"])
def test_attention_that_selects_nothing(name):
    """A budget that keeps every token: the checks are those of other calls, but for how types are written."""
    changed, parts = ATTENTION[name]
    changed = {"topk": 64} | changed
    check(lambda: lighthouse.lighthouse_attention(**(TENSORS | LAYOUT | changed)), *parts)


def test_types_and_selections_of_a_call_that_selects_nothing():
    tokens = torch.arange(64, dtype=torch.int32).expand(1, 2, 64)
    call = functools.partial(lighthouse.lighthouse_attention, **(LAYOUT | dict(topk=64)))
    assert call(**TENSORS, selection=tokens).equal(call(**TENSORS))
    check(lambda: call(**TENSORS, selection=tokens.flip(-1)), "row 0) is 63", "leaf that begins at token 0")
    check(lambda: call(**TENSORS, selection=tokens[:, :, :56]), "selection has shape [1, 2, 56]", "here [1, 2, 64]")
    check(lambda: call(**(TENSORS | dict(k=TENSORS["k"].double()))), "k is torch.float64", "one dtype")
    check(lambda: call(**{name: x.int() for name, x in TENSORS.items()}), "q is torch.int32", "float32, float64")


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize(("offsets", "part"), [([0, 63], "ends at 63"), (np.array([0, 40, 30, 64]), "decreases from 40 to 30"),
                                               ([0.0, 64.0], "integers"), ([], "cu_seqlens has 0 elements")], ids=str)
def test_offsets_of_every_other_function(enabled, offsets, part):
    module = lighthouse.LighthouseAttention(**LAYOUT)
    module.enabled = enabled
    check(lambda: module(**TENSORS, cu_seqlens=offsets), part)
    for scorer in ("norm", "dilated"):
        check(lambda: lighthouse.token_scores(**TENSORS, scorer=scorer, cu_seqlens=offsets), part)
    check(lambda: lighthouse.select(SCORES, SCORES, **LAYOUT, cu_seqlens=offsets), part)
    check(lambda: lighthouse.gathered_length(64, **LAYOUT, cu_seqlens=offsets), part)


def check(call, *parts):
    with pytest.raises(ValueError) as error:
        call()
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(("changed", "parts"), ATTENTION.values(), ids=ATTENTION)
def test_attention(changed, parts):
    check(lambda: lighthouse.lighthouse_attention(**(TENSORS | LAYOUT | changed)), *parts)


ELSEWHERE = ("no_tensor", "scorer", "scores", "sparse", "gate_integers", "scores_dtype", "softmax_scale", "cu_seqlens_floats")


@pytest.mark.parametrize("name", [name for name, (changed, _) in ATTENTION.items()
                                  if name not in ELSEWHERE and "attention" not in changed])
def test_the_cpp_functions_use_the_same_words(cpp, name):
    """But for how types and numbers are written, and where a check has moved. A scorer is an enum there."""
    arguments = TENSORS | LAYOUT | ATTENTION[name][0]
    with pytest.raises(ValueError) as ours:
        lighthouse.lighthouse_attention(**arguments)
    with pytest.raises(ValueError) as theirs:
        cpp.attention(**flat(arguments))
    assert str(theirs.value).split("\nException raised")[0] == str(ours.value)


def test_topk_has_no_default():
    with pytest.raises(TypeError, match="topk"):
        lighthouse.lighthouse_attention(**TENSORS)


def test_select():
    layout = dict(LAYOUT, num_levels=3)
    check(lambda: lighthouse.select(SCORES[0], SCORES, **layout), "s_qk has 2 dimensions", "[batch, num_kv_heads, seq_len]")
    check(lambda: lighthouse.select(SCORES, SCORES[:, :1], **layout), "s_kq has shape [1, 1, 64]")
    check(lambda: lighthouse.select(SCORES.half(), SCORES, **layout), "s_qk is Half", "torch.float32")
    check(lambda: lighthouse.select(SCORES, SCORES, **(layout | dict(topk=0))), "topk is 0")


def test_gathered_length():
    check(lambda: lighthouse.gathered_length(0, **LAYOUT), "the sequence has 0 tokens", "between 1 and")
    check(lambda: lighthouse.gathered_length(64, **(LAYOUT | dict(pooling_factor=5))), "pooling_factor is 5")
    check(lambda: lighthouse.gathered_length(2**31 - 1, **LAYOUT), "int32 cannot number", "fewer levels")


BEYOND = 2**64 + 128


def test_integers_beyond_64_bits_are_not_taken_for_others():
    check(lambda: lighthouse.gathered_length(BEYOND, **LAYOUT), f"gathered_length: seq_len is {BEYOND}", "64 bits")
    check(lambda: lighthouse.gathered_length(64, **LAYOUT, cu_seqlens=[0, BEYOND]), f"cu_seqlens has {BEYOND}", "64 bits")
    for name in LAYOUT:
        check(lambda: lighthouse.gathered_length(64, **(LAYOUT | {name: BEYOND})), f"gathered_length: {name} is {BEYOND}")
        check(lambda: lighthouse.lighthouse_attention(**TENSORS, **(LAYOUT | {name: BEYOND})), f"attention: {name} is {BEYOND}")
        check(lambda: lighthouse.LighthouseAttention(**(LAYOUT | {name: -BEYOND})), f"Attention: {name} is -{BEYOND}")
    check(lambda: lighthouse.token_scores(**TENSORS, scorer="dilated", dilation=BEYOND), f"dilation is {BEYOND}")


def test_options_of_prepare_are_named():
    pytest.importorskip("transformers")
    from lighthouse_attention.huggingface import options
    for name in ("topk", "num_levels", "tile_topk", "dilation"):
        check(lambda: options.check(options.OF_A_LAYER | {name: 4.5}), f"prepare: {name} is 4.5; it must be an integer")


@pytest.mark.parametrize("name", ["rank", "v_shape", "channels", "topk", "scorer", "softmax_scale", "cu_seqlens_end",
                                  "selection_order", "selection_twice", "attention_shape"])
def test_errors_in_a_compiled_function_keep_their_words(name):
    torch.compiler.reset()
    changed, parts = ATTENTION[name]
    compiled = torch.compile(lighthouse.lighthouse_attention, fullgraph=True, backend="aot_eager")
    with pytest.raises(Exception) as error:  # torch has types of its own for what fails while it traces
        compiled(**(TENSORS | LAYOUT | changed))
    assert all(part in str(error.value) for part in parts)

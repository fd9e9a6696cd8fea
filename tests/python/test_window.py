"""Sliding windows against dense attention with a mask in fp64; their place between the layers of a model."""

import copy
import pickle

import pytest
import torch
import torch._dynamo.testing
import torch.nn.functional as F
from attention_cases import results_of
import lighthouse_attention as lighthouse

OFFSETS = [0, 41, 41, 43, 96]


def tensors(dtype=torch.float64, heads=4, kv_heads=2):
    generator = torch.Generator().manual_seed(5)
    return [torch.randn([1, 96, h, 16], generator=generator, dtype=torch.float64).to(dtype) for h in (heads, kv_heads, kv_heads, heads)]


def masked(span, offsets, q, k, v):
    """By the definition: a query sees a key of its document that is less than `span` tokens back."""
    token = torch.arange(q.shape[1])
    document = torch.bucketize(token, torch.tensor(offsets[1:]), right=True)
    distance = token[:, None] - token
    mask = (distance >= 0) & (distance < span) & (document[:, None] == document)
    k, v = (x.repeat_interleave(q.shape[2] // x.shape[2], dim=2) for x in (k, v))
    return F.scaled_dot_product_attention(*(x.transpose(1, 2) for x in (q, k, v)), mask).transpose(1, 2)


@pytest.mark.parametrize("offsets", [None, OFFSETS])
@pytest.mark.parametrize("span", [1, 7, 95, 96, 1000])
def test_a_query_sees_the_latest_tokens_of_its_document(span, offsets):
    module = lighthouse.SlidingWindowAttention(span)
    ours = results_of(lambda q, k, v: module(q, k, v, cu_seqlens=offsets), *tensors())
    exact = results_of(lambda q, k, v: masked(span, offsets or [0, 96], q, k, v), *tensors())
    for x, right in zip(ours, exact):
        torch.testing.assert_close(x, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("rows", "span"), [(513, 7), (1000, 255), (1024, 256), (1025, 300), (700, 300)])
def test_is_the_same_in_blocks_of_rows(rows, span):
    """Where the mask of all rows would be large."""
    generator = torch.Generator().manual_seed(6)
    given = [torch.randn([2, rows, heads, 8], generator=generator, dtype=torch.float64) for heads in (2, 1, 1, 2)]
    ours = results_of(lighthouse.SlidingWindowAttention(span), *given)
    for x, right in zip(ours, results_of(lambda q, k, v: masked(span, [0, rows], q, k, v), *given)):
        torch.testing.assert_close(x, right, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_errs_as_stock_attention(dtype):
    exact = results_of(lambda q, k, v: masked(9, [0, 96], q, k, v), *(x.double() for x in tensors(dtype)))
    ours = results_of(lighthouse.SlidingWindowAttention(9), *tensors(dtype))
    for x, right in zip(ours, exact):
        assert (x.double() - right).norm() <= 2 * torch.finfo(dtype).eps * right.norm()


def test_may_be_the_attention_in_the_middle():
    """Of gathered rows it sees the latest; with one level these are tokens."""
    q, k, v, _ = tensors()
    out = lighthouse.lighthouse_attention(q, k, v, topk=1, num_levels=1, attention=lighthouse.SlidingWindow(7))
    torch.testing.assert_close(out, masked(7, [0, 96], q, k, v))


def test_switches_to_dense_and_is_copied():
    model = torch.nn.ModuleList([lighthouse.SlidingWindowAttention(7, softmax_scale=0.2), lighthouse.LighthouseAttention(topk=4)])
    q, k, v, _ = tensors()
    before = model[0](q, k, v)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(other[0](q, k, v), before)
    assert lighthouse.switch_to_dense(model) == 2 and "span=7, enabled=False" in repr(model)
    dense = lighthouse.LighthouseAttention(topk=4, softmax_scale=0.2)
    dense.enabled = False
    assert torch.equal(model[0](q, k, v), dense(q, k, v)) and not torch.equal(model[0](q, k, v), before)


def test_is_one_graph():
    module = lighthouse.SlidingWindowAttention(7)
    counter = torch._dynamo.testing.CompileCounter()
    q, k, v, _ = tensors(torch.float32)
    compiled = torch.compile(module, backend=counter, fullgraph=True)
    assert torch.equal(compiled(q, k, v), module(q, k, v)) and counter.frame_count == 1
    long = [torch.randn([1, 600, heads, 16]) for heads in (4, 2, 2)]
    assert torch.equal(compiled(*long), module(*long))


@pytest.mark.parametrize(("span", "words"), [(0, "span is 0; it must be at least 1 token"), (1.5, "span is 1.5; it must be an integer")])
def test_refuses(span, words):
    for attention in (lighthouse.SlidingWindow, lighthouse.SlidingWindowAttention):
        with pytest.raises(ValueError, match=words):
            attention(span)

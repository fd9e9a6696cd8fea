"""The attention in the middle: the rules of what stock attention takes, and the error of grouped heads in 16 bits."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from attention_cases import results_of
import lighthouse_attention as lighthouse
from lighthouse_attention import inner

H = 32
OFFSETS = [0, 66, 66, 96]


def tensors(num_kv_heads, dtype):
    generator = torch.Generator().manual_seed(3)
    shapes = [[1, OFFSETS[-1], heads, 16] for heads in (H, num_kv_heads, num_kv_heads, H)]
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def repeated(attention, q, k, v):
    """With keys and values for every query head; their gradients are added up in fp32."""
    return attention(q, *(x.repeat_interleave(H // x.shape[2], dim=2) for x in (k, v)))


def dense(q, k, v):
    return torch.cat([F.scaled_dot_product_attention(*(x[:, begin:end].transpose(1, 2) for x in (q, k, v)),
                                                     is_causal=True).transpose(1, 2)
                      for begin, end in zip(OFFSETS, OFFSETS[1:]) if end > begin], dim=1)


def gathered(q, k, v, selection):
    return lighthouse.lighthouse_attention(q, k, v, topk=1, num_levels=1, cu_seqlens=OFFSETS, selection=selection)


@pytest.mark.parametrize("num_kv_heads", [1, 2, 8])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_grouped_heads_err_as_repeated_ones(num_kv_heads, dtype):
    inputs = tensors(num_kv_heads, dtype)
    exact = results_of(partial(repeated, dense), *(x.double() for x in inputs))

    def errors(function):
        return [((ours - right).norm() / right.norm()).item() for ours, right in zip(results_of(function, *inputs), exact)]

    bound = [1.05 * error for error in errors(partial(repeated, dense))]
    every_token = torch.arange(OFFSETS[-1], dtype=torch.int32).expand(1, num_kv_heads, -1)
    module = lighthouse.LighthouseAttention(topk=1)
    module.enabled = False
    for ours in (errors(partial(gathered, selection=every_token)), errors(partial(module, cu_seqlens=OFFSETS))):
        assert all(error <= limit for error, limit in zip(ours, bound))


def test_rows_that_stock_kernels_load():
    assert inner.rows_start_aligned((8192, 4096, 32, 1), 4)
    assert inner.rows_start_aligned((0, 0, 4, 1), 4)  # expanded
    assert not inner.rows_start_aligned((8192, 4096, 33, 1), 4)
    assert not inner.rows_start_aligned((8192, 33, 64, 1), 4)  # of a single head too
    assert not inner.rows_start_aligned((8192, 4096, 4, 1), 2)
    assert [inner.missing_channels(d, 4) for d in (1, 3, 4, 36)] == [3, 1, 0, 0]
    assert [inner.missing_channels(d, 2) for d in (1, 4, 8, 36, 250)] == [7, 4, 0, 4, 6]


def test_heads_that_may_share_keys():
    assert inner.may_share_keys(True, True, 256) and not inner.may_share_keys(True, True, 264)
    assert not inner.may_share_keys(True, False, 64)
    assert inner.may_share_keys(False, False, 64) and not inner.may_share_keys(False, True, 64)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_does_not_lie_right_is_copied(dtype):
    wide = torch.randn(1, 64, 2, 41).to(dtype)
    cases = [wide[..., :32], wide[..., 1:33], wide[:, :, :1, :32], wide[..., :41], torch.randn(1, 64, 2, 32)[:, 1:].to(dtype),
             torch.randn(2 * 64 * 32 + 1).to(dtype)[1:].view(1, 64, 2, 32)]
    for x in (case.transpose(1, 2) for case in cases):
        fits = inner.acceptable(x)
        assert inner.rows_start_aligned(fits.stride(), fits.element_size()) and fits.data_ptr() % 16 == 0
        assert torch.equal(fits[..., :x.shape[3]], x) and not fits[..., x.shape[3]:].any()
        already = inner.starts_aligned(x) and inner.rows_start_aligned(x.stride(), x.element_size())
        assert (fits is x) == (already and x.shape[3] % (16 // x.element_size()) == 0)

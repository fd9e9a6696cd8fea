"""Section (v): stock causal attention over gathered rows, q [B, H, S, d], k and v [B, H_kv, S, d] -> [B, H, S, d]."""

import itertools
import math
import operator

import torch
import torch.nn.functional as F

from .operators import ops


class Stock:
    """An attention of PyTorch's with options: under autocast it is given what PyTorch's own is."""


def for_every_query_head(x, num_heads):
    """Keys or values [B, H_kv, S, d] as [B, H, S, d]."""
    group = num_heads // x.shape[1]
    return x.unsqueeze(2).expand(-1, -1, group, -1, -1).flatten(1, 2) if group != 1 else x


# The rules of src/ops/stock_rules.h, which has the reasons.
LOAD_BYTES = 16


def missing_channels(head_dim, element_size):
    """Zero channels that make a row a multiple of 16 bytes."""
    return -head_dim % (LOAD_BYTES // element_size)


def rows_start_aligned(strides, element_size):
    """Whether every row starts at a multiple of 16 bytes if the first one does."""
    return all(stride % (LOAD_BYTES // element_size) == 0 for stride in strides[:-1])


def may_share_keys(is_cuda, is_16_bit, head_dim):
    """Whether query heads may share keys and values in the call (enable_gqa); else these are repeated."""
    return is_16_bit and head_dim <= 256 if is_cuda else not is_16_bit


def starts_aligned(x):
    if torch.compiler.is_compiling():
        return True  # a graph's own tensors begin at 0
    if type(x) not in (torch.Tensor, torch.nn.Parameter) or torch._C._are_functorch_transforms_active():
        return x.storage_offset() % (LOAD_BYTES // x.element_size()) == 0  # others have no address
    return x.data_ptr() % LOAD_BYTES == 0


def aligned(x):
    """A copy where rows do not start at multiples of 16 bytes."""
    fits = rows_start_aligned(x.stride(), x.element_size()) and starts_aligned(x)
    return x if fits else x.clone(memory_format=torch.contiguous_format)  # contiguous() keeps strides of size 1


def acceptable(x):
    """Heads [B, H, S, d] as stock kernels on CUDA take them, with channels of zeros at the end where d is no multiple of 16
    bytes."""
    missing = missing_channels(x.shape[3], x.element_size())
    return aligned(F.pad(x, (0, missing)) if missing else x)


def one_document(q, k, v, softmax_scale=None):
    """PyTorch's SDPA, which chooses the kernel. Grouped heads are left to it where that costs nothing."""
    grouped = operator.index(q.shape[1]) != operator.index(k.shape[1])  # numbers in a traced graph too
    if grouped and not may_share_keys(q.is_cuda, q.dtype in (torch.float16, torch.bfloat16), q.shape[3]):
        k, v, grouped = for_every_query_head(k, q.shape[1]), for_every_query_head(v, q.shape[1]), False
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=softmax_scale, enable_gqa=grouped)


def attend_each(attention, q, k, v, num_rows):
    """`attention` on each document that has rows."""
    if len(num_rows) == 1:
        return attention(q, k, v)
    parts = zip(*(x.split(num_rows, dim=2) for x in (q, k, v)))
    return torch.cat([attention(*part) for part, rows in zip(parts, num_rows) if rows > 0], dim=2)


def takes_flash(q):
    """Whether FlashAttention-2 runs on q [.., d]."""
    return q.is_cuda and q.dtype in (torch.float16, torch.bfloat16) and q.shape[-1] <= 256


def varlen(q, k, v, num_rows, scale):
    """All documents in one call on CUDA: FlashAttention-2, or the memory-efficient kernel, by offsets."""
    head_dim, num_heads = q.shape[3], q.shape[1]
    q, k, v = (F.pad(x, (0, -head_dim % 8)) if head_dim % 8 else x for x in (q, k, v))
    bounds = [0, *itertools.accumulate(rows for rows in num_rows if rows > 0)]
    offsets, longest = ops._offsets_like(q, bounds), max(num_rows)
    if takes_flash(q):
        by_row = [x.squeeze(0).transpose(0, 1) for x in (q, k, v)]
        out = torch.ops.aten._flash_attention_forward(*by_row, offsets, offsets, longest, longest, 0.0, True, False,
                                                      scale=scale)[0].transpose(0, 1).unsqueeze(0)
    else:
        by_row = [for_every_query_head(x, num_heads).transpose(1, 2) for x in (q, k, v)]
        out = torch.ops.aten._efficient_attention_forward(*by_row, None, offsets, offsets, longest, longest, 0.0, 1, True,
                                                          scale=scale)[0].transpose(1, 2)
    return out[..., :head_dim]


def stock_attention(q, k, v, num_rows, softmax_scale=None):
    """All documents of a row, which hold `num_rows` rows each (B = 1 where there are several)."""
    if not q.is_cuda or q.dtype == torch.float64:  # plain matrix products take all
        return attend_each(lambda *qkv: one_document(*qkv, softmax_scale), q, k, v, num_rows)
    head_dim = q.shape[3]
    scale = 1.0 / math.sqrt(head_dim) if softmax_scale is None else softmax_scale
    q, k, v = acceptable(q), acceptable(k), acceptable(v)
    out = one_document(q, k, v, scale) if len(num_rows) == 1 else varlen(q, k, v, num_rows, scale)
    return out if out.shape[3] == head_dim else out[..., :head_dim]


def with_any_gradient(out):
    """The same tensor, whose gradient in backward is first copied where stock kernels on CUDA would refuse it. One that
    scatter's adjoint makes lies right."""
    if out.is_cuda and out.dtype != torch.float64 and out.requires_grad and not torch.compiler.is_compiling():
        out.register_hook(aligned)
    return out

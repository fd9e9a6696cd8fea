"""Section (v): stock causal attention over gathered rows, q [B, H, S, d], k and v [B, H_kv, S, d] -> [B, H, S, d]."""

import math
import operator

import torch
import torch.nn.functional as F

from .operators import ops


def for_every_query_head(x, num_heads):
    """Keys or values [B, H_kv, S, d] as [B, H, S, d]."""
    return x.repeat_interleave(num_heads // x.shape[1], dim=1) if x.shape[1] != num_heads else x


def aligned(x):
    """What stock CUDA kernels take: rows that start at multiples of 16 bytes. Others are copied."""
    elements = 16 // x.element_size()
    offset = 0 if torch.compiler.is_compiling() else x.storage_offset()  # a graph's own tensors begin at 0
    fits = offset % elements == 0 and all(
        size == 1 or stride % elements == 0 for size, stride in zip(x.shape[:-1], x.stride()[:-1]))
    return x if fits else x.contiguous()


def one_document(q, k, v, softmax_scale=None):
    """PyTorch's SDPA, which chooses the kernel. Grouped heads are left to it where its fast kernels take them."""
    grouped = operator.index(q.shape[1]) != operator.index(k.shape[1])  # numbers in a traced graph too
    if grouped and q.is_cuda and q.dtype not in (torch.float16, torch.bfloat16):
        k, v, grouped = for_every_query_head(k, q.shape[1]), for_every_query_head(v, q.shape[1]), False
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=softmax_scale, enable_gqa=grouped)


def attend_each(attention, q, k, v, num_rows):
    """`attention` on each document that has rows."""
    if len(num_rows) == 1:
        return attention(q, k, v)
    parts = zip(*(x.split(num_rows, dim=2) for x in (q, k, v)))
    return torch.cat([attention(*part) for part, rows in zip(parts, num_rows) if rows > 0], dim=2)


def varlen(q, k, v, num_rows, softmax_scale):
    """All documents in one call on CUDA: FlashAttention-2, or the memory-efficient kernel, by offsets."""
    head_dim, num_heads = q.shape[3], q.shape[1]
    scale = 1.0 / math.sqrt(head_dim) if softmax_scale is None else softmax_scale
    q, k, v = (F.pad(x, (0, -head_dim % 8)) if head_dim % 8 else x for x in (q, k, v))
    bounds = [0]
    for rows in num_rows:
        if rows > 0:
            bounds.append(bounds[-1] + rows)
    offsets, longest = ops._offsets_like(q, bounds), max(num_rows)
    if q.dtype in (torch.float16, torch.bfloat16) and head_dim <= 256:
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
    if q.is_cuda:
        q, k, v = aligned(q), aligned(k), aligned(v)
        if len(num_rows) > 1 and q.dtype != torch.float64:
            return varlen(q, k, v, num_rows, softmax_scale)
    return attend_each(lambda *qkv: one_document(*qkv, softmax_scale), q, k, v, num_rows)

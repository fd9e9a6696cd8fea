"""Sliding windows: what layers between Lighthouse layers may do in stage one, so that near tokens are seen exactly."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .functional import integer, require
from .inner import acceptable, for_every_query_head, may_share_keys, stock_attention, with_any_gradient


def check_window_layers(name, dense, windows, span):
    """Of the options of a model, as its function `name` was given them."""
    both = set(dense) & set(windows)
    require(not both, f"{name}: layer {min(both, default=0)} is in full_attention_layers and in window_layers; leave it in one of them")
    require(bool(windows) == (span is not None), f"{name}: span is {span} and window_layers are {list(windows)}; give both or neither: "
            "the layers, and the tokens that each of their queries sees")
    if windows:
        SlidingWindow(span)  # for its checks


def in_window(num_rows, span, device):
    """[S, S], whether a query sees a key."""
    row = torch.arange(num_rows, device=device)
    distance = row.unsqueeze(1) - row
    return (distance >= 0) & (distance < span)


@dataclass(frozen=True)
class SlidingWindow:
    """A query sees the latest `span` keys, its own included: an `attention` for lighthouse_attention and dense_attention,
    q [B, H, S, d], k and v [B, H_kv, S, d] -> [B, H, S, d]. FlashAttention-2 for bf16 and fp16 on CUDA, in time and memory of
    S span; else PyTorch's SDPA with a mask of S x S.

    Args:
        span: at least 1.
        softmax_scale: 1 / sqrt(d) by default.

    Raises:
        ValueError: span is less than 1.
    """

    span: int
    softmax_scale: float = None

    def __post_init__(self):
        require(integer("SlidingWindow", "span", self.span) >= 1, f"SlidingWindow: span is {self.span}; it must be at least 1 token")

    def __call__(self, q, k, v):
        num_rows, head_dim, is_16_bit = q.shape[2], q.shape[3], q.dtype in (torch.float16, torch.bfloat16)
        if self.span >= num_rows:
            return with_any_gradient(stock_attention(q, k, v, [num_rows], self.softmax_scale))
        scale = head_dim ** -0.5 if self.softmax_scale is None else self.softmax_scale
        if q.is_cuda and is_16_bit and head_dim <= 256:
            by_row = [acceptable(x).transpose(1, 2) for x in (q, k, v)]
            out = torch.ops.aten._flash_attention_forward(*by_row, None, None, num_rows, num_rows, 0.0, True, False, scale=scale,
                                                          window_size_left=self.span - 1, window_size_right=0)[0]
            return with_any_gradient(out.transpose(1, 2))[..., :head_dim]
        if not may_share_keys(q.is_cuda, is_16_bit, head_dim):
            k, v = for_every_query_head(k, q.shape[1]), for_every_query_head(v, q.shape[1])
        return F.scaled_dot_product_attention(q, k, v, in_window(num_rows, self.span, q.device), scale=scale,
                                              enable_gqa=k.shape[1] != q.shape[1])

"""Sliding windows: what layers between Lighthouse layers may do in stage one, so that near tokens are seen exactly."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from .checks import attention_scale, integer
from .errors import require
from .inner import Stock, acceptable, for_every_query_head, may_share_keys, stock_attention, takes_flash, with_any_gradient


def layer_index(name, option, layer, num_layers):
    """A layer of a model, as its function `name` was given it; `num_layers` may be None, where it is not known."""
    index = integer(name, f"a layer of {option}", layer)
    end = 2**31 if num_layers is None else num_layers
    require(0 <= index < end, f"{name}: {option} has layer {index}; the model has {num_layers} layers, 0 to {end - 1}" if num_layers
            else f"{name}: {option} has layer {index}; layers are numbered from 0 on")
    return index


def layer_indices(name, option, layers, num_layers):
    """Each once, in order."""
    require(not isinstance(layers, (str, bytes, dict)) and hasattr(layers, "__iter__") and getattr(layers, "ndim", 1) == 1,
            f"{name}: {option} is {layers!r}; it must be a list of layers, integers from 0 on")
    return sorted({layer_index(name, option, layer, num_layers) for layer in layers})


def checked_layers(name, dense, windows, span, num_layers):
    """(full_attention_layers, window_layers, span) of a model, as its function `name` was given them."""
    dense = layer_indices(name, "full_attention_layers", dense, num_layers)
    windows = layer_indices(name, "window_layers", windows, num_layers)
    both = set(dense) & set(windows)
    require(not both, f"{name}: layer {min(both, default=0)} is in full_attention_layers and in window_layers; leave it in one of them")
    require(bool(windows) == (span is not None), f"{name}: span is {span} and window_layers are {windows}; give both or neither: "
            "the layers, and the tokens that each of their queries sees")
    return dense, windows, checked_span(name, span) if windows else None


def checked_span(name, span):
    span = integer(name, "span", span)
    require(span >= 1, name + ": span is {}; it must be at least 1 token", span)
    return span


LEAST_BLOCK = 256  # rows


def in_window(num_queries, num_keys, span, device):
    """[queries, keys], whether a query sees a key; the last of both are the same row."""
    row = torch.arange(num_keys, device=device)
    distance = row[num_keys - num_queries:].unsqueeze(1) - row
    return (distance >= 0) & (distance < span)


def by_blocks(q, k, v, span, scale):
    """SDPA of blocks of rows, each with itself and the block before it, of as many rows as a window has or more: q, k and v
    [B, H, S, d] -> [B, H, S, d]."""
    size = max(span, LEAST_BLOCK)
    num_rows, num_blocks = q.shape[2], (q.shape[2] + size - 1) // size
    mask = in_window(size, 2 * size, span, q.device)
    first = F.scaled_dot_product_attention(q[:, :, :size], k[:, :, :size], v[:, :, :size], mask[:, size:], scale=scale)

    def in_blocks(x):
        """Blocks as heads; what is behind the last row is seen by none."""
        return F.pad(x, (0, 0, 0, num_blocks * size - num_rows)).unflatten(2, (num_blocks, size))

    def with_those_before(x):
        blocks = in_blocks(x)
        return torch.cat((blocks[:, :, :-1], blocks[:, :, 1:]), dim=3).flatten(1, 2)

    others = F.scaled_dot_product_attention(in_blocks(q)[:, :, 1:].flatten(1, 2), with_those_before(k), with_those_before(v), mask, scale=scale)
    return torch.cat((first, others.unflatten(1, (q.shape[1], num_blocks - 1)).flatten(2, 3)), dim=2)[:, :, :num_rows]


@dataclass(frozen=True)
class SlidingWindow(Stock):
    """A query sees the latest `span` keys, its own included: an `attention` for lighthouse_attention and dense_attention,
    q [B, H, S, d], k and v [B, H_kv, S, d] -> [B, H, S, d]. FlashAttention-2 for bf16 and fp16 on CUDA; else PyTorch's SDPA
    with a mask, by blocks of rows. In time of S span.

    Args:
        span: at least 1.
        softmax_scale: 1 / sqrt(d) by default.

    Raises:
        ValueError: span is less than 1, or softmax_scale is not positive; or shapes do not fit.
    """

    span: int
    softmax_scale: float = None

    def __post_init__(self):
        span, scale = checked_span("SlidingWindow", self.span), attention_scale("SlidingWindow", self.softmax_scale)
        if not torch.compiler.is_compiling():  # a traced graph has plain numbers, and may not write here
            vars(self).update(span=span, softmax_scale=scale)

    def __hash__(self):  # torch.compile asks for that of one that a traced graph is making, which has no span yet
        return hash(tuple(vars(self).values()))

    def __call__(self, q, k, v):
        if not q.dim() == k.dim() == 4 or k.shape != v.shape or q.shape[2:] != k.shape[2:] or q.shape[0] != k.shape[0]:
            raise ValueError(f"SlidingWindow: q has shape {list(q.shape)}, k {list(k.shape)} and v {list(v.shape)}; they must be "
                             "[batch, heads, rows, head_dim], and differ in the heads of q only")
        num_rows, head_dim, is_16_bit = q.shape[2], q.shape[3], q.dtype in (torch.float16, torch.bfloat16)
        if self.span >= num_rows:
            return with_any_gradient(stock_attention(q, k, v, [num_rows], self.softmax_scale))
        scale = head_dim ** -0.5 if self.softmax_scale is None else self.softmax_scale
        if takes_flash(q):
            by_row = [acceptable(x).transpose(1, 2) for x in (q, k, v)]
            out = torch.ops.aten._flash_attention_forward(*by_row, None, None, num_rows, num_rows, 0.0, True, False, scale=scale,
                                                          window_size_left=self.span - 1, window_size_right=0)[0]
            return with_any_gradient(out.transpose(1, 2))[..., :head_dim]
        in_blocks = num_rows > 2 * max(self.span, LEAST_BLOCK)
        if in_blocks or not may_share_keys(q.is_cuda, is_16_bit, head_dim):
            k, v = for_every_query_head(k, q.shape[1]), for_every_query_head(v, q.shape[1])
        if in_blocks:
            return by_blocks(q, k, v, self.span, scale)
        return F.scaled_dot_product_attention(q, k, v, in_window(num_rows, num_rows, self.span, q.device), scale=scale,
                                              enable_gqa=k.shape[1] != q.shape[1])

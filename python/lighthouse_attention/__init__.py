"""Lighthouse attention for PyTorch: shorten the sequence, attend, widen it again (arXiv:2605.06554).

    from lighthouse_attention import lighthouse_attention
    out = lighthouse_attention(q, k, v, topk=512)   # q [B, N, H, d], k and v [B, N, H_kv, d] -> [B, N, H, d]

`python -m lighthouse_attention` says what is installed and whether it fits together.
"""

import sys

import torch

# What a process registers once serves a package that is imported again too.
sys.modules |= vars(torch.ops.lighthouse).get("registered", {})

try:
    from . import library, operators, packed  # the latter two register what the library leaves to Python
    torch.ops.lighthouse.registered = {module.__name__: module for module in (library, operators, packed)}
    from .functional import gathered_length, lighthouse_attention, select, token_scores
    from .module import LighthouseAttention, SlidingWindowAttention, switch_to_dense
    from .shards import TokenShards
    from .window import SlidingWindow

    __version__ = library.version()
except ImportError:
    if sys.argv[:1] != ["-m"]:  # python -m lighthouse_attention says what is wrong, without a traceback
        raise

__all__ = ["LighthouseAttention", "SlidingWindow", "SlidingWindowAttention", "TokenShards", "gathered_length", "lighthouse_attention",
           "select", "switch_to_dense", "token_scores"]

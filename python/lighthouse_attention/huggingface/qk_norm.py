"""Models with QK-norm. After it all norms are alike, and say nothing: the norms of what goes into it are the scores.

Hooks on a layer's norms keep what goes in until the attention of the same layer, in the same thread, takes it. They are
functions of this module that know nothing but their arguments: a model with them is copied and pickled as any other.
"""

import threading

from torch import nn

from ..functional import token_scores
from .options import NAME

NORMS = {"q_norm": "q", "q_layernorm": "q", "query_layernorm": "q", "k_norm": "k", "k_layernorm": "k", "key_layernorm": "k"}


class Layer:
    """The layer that a thread is in: `kept`, what went into its norms; None outside of a layer that has hooks."""

    kept = None


class Current(threading.local):
    def __init__(self):
        self.layer = Layer()  # torch.compile does not trace what is written to Current itself


current = Current()


def enter_layer(layer, arguments):
    current.layer.kept = {} if layer.config._attn_implementation == NAME else None


def keep_q(norm, arguments):
    if current.layer.kept is not None:
        current.layer.kept.setdefault("q", arguments[0].detach())


def keep_k(norm, arguments):
    if current.layer.kept is not None:
        current.layer.kept.setdefault("k", arguments[0].detach())


KEEPERS = {"q": keep_q, "k": keep_k}


def add_hook(module, hook, **options):
    if hook not in module._forward_pre_hooks.values():
        module.register_forward_pre_hook(hook, **options)


def norms_of(layer):
    """{"q": norm, "k": norm} of a layer with QK-norm; {} of others."""
    norms = {which: getattr(layer, name) for name, which in NORMS.items() if isinstance(getattr(layer, name, None), nn.Module)}
    return norms if len(norms) == 2 else {}


def leave_layer():
    """What went into its norms, {"q": tensor, "k": tensor}; None where nothing was kept."""
    kept, current.layer.kept = current.layer.kept, None
    return kept


def by_token(x, heads):
    """What went into a norm, as [B, N, H, d], given heads [B, H, N, d] that came of it; None where it has another shape."""
    batch, num_heads, seq_len, head_dim = heads.shape
    if x.shape == (batch, seq_len, num_heads, head_dim):
        return x
    if x.shape == heads.shape:
        return x.transpose(1, 2)
    return x.unflatten(-1, (num_heads, head_dim)) if x.shape == (batch, seq_len, num_heads * head_dim) else None


def scores_before_norm(kept, query, key, value):
    """(s_qk, s_kq) of heads [B, H, N, d]; None where what went into the norms is not known."""
    q, k = (by_token(kept[which], heads) if which in kept else None for which, heads in (("q", query), ("k", key)))
    return None if q is None or k is None else token_scores(q, k, value.transpose(1, 2))

"""The module, and the switch to stage two."""

import torch

from .checks import attention_scale, boolean, check_attention, check_heads, integer
from .errors import require
from .functional import (EVERY_TOKEN, SCORERS, check_offsets, check_scorer, check_shard_offsets, checked_arguments, checked_inputs, full_attention,
                         host_offsets, layout_of, lighthouse_attention, without_values)
from .window import SlidingWindow
from .operators import ops
from . import context, library


class LighthouseAttention(torch.nn.Module):
    """lighthouse_attention with its options; no parameters, so a model's checkpoint is the same with and without it.

    `enabled = False` makes it plain causal attention over all tokens: stage two of the paper's training.

    Args:
        topk, num_levels, pooling_factor, tile_topk, scorer, dilation, cover_prefix, softmax_scale, attention: as in
            lighthouse_attention. Each layer of a model may have its own.
        group: the ranks that share each row, as in lighthouse_attention; a copy or a pickle of the module knows it by name.

    Raises:
        ValueError: an option is out of range.
    """

    def __init__(self, *, topk, num_levels=3, pooling_factor=4, tile_topk=128, scorer="norm", dilation=4, cover_prefix=True,
                 softmax_scale=None, attention=None, group=None):
        super().__init__()
        layout = layout_of("LighthouseAttention", num_levels, pooling_factor, topk, tile_topk)
        library.plan("LighthouseAttention", 1, layout)  # for its checks
        num_levels, pooling_factor, topk, tile_topk = layout
        dilation = integer("LighthouseAttention", "dilation", dilation)
        require(scorer in SCORERS, f"LighthouseAttention: scorer is '{scorer}'; it must be norm, dilated or gla")
        check_scorer("norm", dilation, None)
        cover_prefix = boolean("LighthouseAttention", "cover_prefix", cover_prefix)
        softmax_scale = attention_scale("LighthouseAttention", softmax_scale)
        check_attention("LighthouseAttention", attention, softmax_scale)
        self.options = dict(topk=topk, num_levels=num_levels, pooling_factor=pooling_factor, tile_topk=tile_topk,
                            scorer=scorer, dilation=dilation, cover_prefix=cover_prefix, softmax_scale=softmax_scale,
                            attention=attention,
                            group=None if group is None else context.group_name("LighthouseAttention", group))
        self.enabled = True

    def forward(self, q, k, v, *, gate=None, scores=None, cu_seqlens=None, selection=None, check_selection=True, shard_offsets=None):
        """q [B, N, H, d], k and v [B, N, H_kv, d] -> [B, N, H, d]; the rest as in lighthouse_attention, cu_seqlens as a
        tensor in a compiled graph too. While `enabled` is False, gate, scores and selection are not used."""
        if self.enabled:
            return lighthouse_attention(q, k, v, gate=gate, scores=scores, cu_seqlens=cu_seqlens, selection=selection,
                                        check_selection=check_selection, shard_offsets=shard_offsets, **self.options)
        options = {name: self.options[name] for name in ("softmax_scale", "attention", "group")}
        return dense_attention(q, k, v, cu_seqlens=cu_seqlens, shard_offsets=shard_offsets, **options)

    def extra_repr(self):
        text = ", ".join(f"{name}={value!r}" for name, value in self.options.items() if value is not None)
        return f"{text}, enabled={self.enabled}"


class SlidingWindowAttention(torch.nn.Module):
    """Attention within a sliding window; no parameters. `enabled = False`, as switch_to_dense sets it, makes it plain causal
    attention over all tokens.

    Args:
        span, softmax_scale: as of SlidingWindow.
        group: the ranks that share each row, as in LighthouseAttention.

    Raises:
        ValueError: span is less than 1, or softmax_scale is not positive.
    """

    def __init__(self, span, *, softmax_scale=None, group=None):
        super().__init__()
        self.window = SlidingWindow(span, softmax_scale)
        self.group = None if group is None else context.group_name("SlidingWindowAttention", group)
        self.enabled = True

    def forward(self, q, k, v, *, cu_seqlens=None, shard_offsets=None):
        """q [B, N, H, d], k and v [B, N, H_kv, d] -> [B, N, H, d]; a window ends where its document begins."""
        how = dict(attention=self.window) if self.enabled else dict(softmax_scale=self.window.softmax_scale)
        return dense_attention(q, k, v, cu_seqlens=cu_seqlens, group=self.group, shard_offsets=shard_offsets, **how)

    def extra_repr(self):
        return f"span={self.window.span}, enabled={self.enabled}"


def dense_attention(q, k, v, *, cu_seqlens=None, softmax_scale=None, attention=None, group=None, shard_offsets=None):
    """Stage two: causal attention over all tokens, [B, N, H, d], by `attention` or PyTorch's SDPA; documents apart.

    Raises:
        ValueError: as lighthouse_attention does.
    """
    name = "dense_attention"
    check_shard_offsets(name, shard_offsets, group)
    if without_values(cu_seqlens) and group is None and (attention is None or isinstance(attention, SlidingWindow)):
        return full_attention_of_any_documents(q, k, v, cu_seqlens, softmax_scale, attention)
    if group is not None or without_values(cu_seqlens):
        return lighthouse_attention(q, k, v, num_levels=1, topk=1, cu_seqlens=cu_seqlens, softmax_scale=softmax_scale,
                                    attention=attention, group=group, shard_offsets=shard_offsets)
    q, k, v, softmax_scale = checked_inputs(name, q, k, v, softmax_scale, attention)
    check_heads(name, q, k, v)
    offsets = host_offsets(name, cu_seqlens)
    check_offsets(name, q, offsets)
    return full_attention(name, q, k, v, offsets, softmax_scale, attention)


def full_attention_of_any_documents(q, k, v, cu_seqlens, softmax_scale, window):
    """dense_attention in a traced graph, which does not know the documents: the operators of packed.py."""
    check_attention("dense_attention", window, softmax_scale)
    softmax_scale, span = (softmax_scale, 0) if window is None else (window.softmax_scale, window.span)
    q, k, v, _, _, softmax_scale = checked_arguments("dense_attention", q, k, v, EVERY_TOKEN, None, softmax_scale, None, None, None, None)
    documents = ops._packed_documents(cu_seqlens, q.shape[0], q.shape[1])
    return ops._packed_full_attention(q, k, v, documents, softmax_scale, span)[0]


def unwrapped(model):
    """The model within DistributedDataParallel, an average of weights, torch.compile and the like."""
    while not hasattr(model, "config") and hasattr(model, "module"):
        model = model.module
    return getattr(model, "_orig_mod", model)


def dense_decoder(decoder):
    """A decoder of transformers with dense attention from now on; whether it was not before."""
    if decoder.config._attn_implementation != "lighthouse":
        return False
    shared = [module for module in decoder.modules() if hasattr(module, "lighthouse_group")]
    if not shared:
        decoder.set_attn_implementation("sdpa")
        return True
    before = all(getattr(module, "lighthouse_dense", False) for module in shared)
    for module in shared:
        module.lighthouse_dense = True
    return not before


def switch_to_dense(model):
    """Stage two: turns every LighthouseAttention and SlidingWindowAttention of `model` into plain causal attention, in place.
    A transformers model goes on with attn_implementation="sdpa", or, if it has a group, as it is, with dense layers. Weights,
    optimizer and data position stay as they are.

    Returns:
        How many layers or modules were switched.

    Raises:
        ValueError: the model has none to switch.
    """
    require(isinstance(model, torch.nn.Module), f"switch_to_dense: model is a {type(model).__name__}; it must be a module")
    modules = [module for module in model.modules() if isinstance(module, (LighthouseAttention, SlidingWindowAttention))]
    switched = [module for module in modules if module.enabled]
    for module in switched:
        module.enabled = False
    decoder = unwrapped(model)
    configured = getattr(getattr(decoder, "config", None), "_attn_implementation", None) == "lighthouse"
    require(modules or configured, "switch_to_dense: the model has no LighthouseAttention, and its attn_implementation is "
            "not 'lighthouse'; there is nothing to switch")
    return len(switched) + (configured and dense_decoder(decoder))

"""Hugging Face transformers: attn_implementation="lighthouse" for causal decoders.

    import transformers, lighthouse_attention.huggingface as lighthouse   # importing it registers "lighthouse"
    model = transformers.AutoModelForCausalLM.from_pretrained(name, attn_implementation="lighthouse")
    lighthouse.prepare(model, topk=1536, full_attention_layers=[0, 1, 28, 29])
    ...                                                                   # stage one
    model.set_attn_implementation("sdpa")                                 # stage two; or switch_to_dense(model)

`prepare` is optional: without it topk is N / 64 and every layer takes part. The weights and the checkpoint are those of the
plain model in both stages.

Rows are full: a padding mask or any other dense mask is refused. Several documents go into one row, told apart by
`position_ids` that start again at 0 (DataCollatorWithFlattening) or by `cu_seq_lens_q`; no document sees another. Causal
attention in training and evaluation only: to generate, switch to "sdpa".

Reading the documents out of position_ids or a padding mask waits for the device once in a forward, not in each layer.
"""

import torch
import transformers
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.utils import logging

from . import library
from .functional import lighthouse_attention, require, token_scores
from .host_copy import HostCopy
from .module import dense_attention

NAME = "lighthouse"
SCORERS = ("norm", "dilated")  # gla needs the input of the block, which transformers does not hand to an attention
PACKED = "packed"  # instead of a mask: the row holds several documents
logger = logging.get_logger(__name__)


def prepare(model, *, topk=None, num_levels=3, pooling_factor=4, tile_topk=128, scorer="norm", dilation=4, cover_prefix=True,
            full_attention_layers=(), layers=None, packed=True):
    """Sets the options of a model's lighthouse attention, and has a model with QK-norm score the tensors before the norm.

    They are kept in `model.config.lighthouse` (of a model of several parts, in its text configuration), and so in a saved
    config.json.

    Args:
        model: a transformers causal decoder, loaded with attn_implementation="lighthouse" or to be switched to it.
        topk: k; by default N / 64, rounded up, for each row of N tokens.
        num_levels, pooling_factor, tile_topk, scorer, dilation, cover_prefix: as in lighthouse_attention; scorer is "norm" or
            "dilated".
        full_attention_layers: indices of layers that stay dense (the paper keeps the first and last two of 30).
        layers: {layer index: {option: value}} for layers with options of their own.
        packed: rows may hold several documents. False promises that none does: then torch.compile makes one graph of the
            model, where it otherwise breaks it to read position_ids, and compiles anew for other documents.

    Returns:
        model.

    Raises:
        ValueError: an option is out of range, or unknown.
    """
    options = dict(topk=topk, num_levels=num_levels, pooling_factor=pooling_factor, tile_topk=tile_topk, scorer=scorer,
                   dilation=dilation, cover_prefix=cover_prefix)
    layers = {str(layer): dict(own) for layer, own in (layers or {}).items()}
    for own in [{}, *layers.values()]:
        unknown = set(own) - set(options)
        require(not unknown, f"prepare: layers has the option '{min(unknown, default='')}'; options are {', '.join(options)}")
        check_options(options | own)
    model.config.get_text_config().lighthouse = dict(options, full_attention_layers=sorted(full_attention_layers), layers=layers, packed=packed)
    for module in model.modules():
        if has_qk_norm(module) and not hasattr(module, "_lighthouse_norms"):
            score_before_norm(module)
    return model


def check_options(options):
    topk = 1 if options["topk"] is None else options["topk"]
    library.plan("prepare", 1, (options["num_levels"], options["pooling_factor"], topk, options["tile_topk"]))
    require(options["scorer"] in SCORERS, f"prepare: scorer is '{options['scorer']}'; with transformers it must be "
            f"{' or '.join(SCORERS)}")
    require(options["dilation"] >= 1, f"prepare: dilation is {options['dilation']}; it must be at least 1")


def options_of(module, seq_len):
    """Keyword arguments of lighthouse_attention for a layer; None for one that stays dense."""
    configured = getattr(module.config, NAME, None) or {}
    layer = getattr(module, "layer_idx", None)
    if layer in configured.get("full_attention_layers", ()):
        return None
    own = configured.get("layers", {}).get(str(layer), {})
    options = {name: value for name, value in (configured | own).items() if name not in ("full_attention_layers", "layers", "packed")}
    if options.get("topk") is None:
        options["topk"] = -(-seq_len // 64)
    return options


def may_be_packed(module):
    return (getattr(module.config, NAME, None) or {}).get("packed", True)


# QK-norm. After it all norms are alike, and say nothing: the norms of what goes into it are the scores.


def has_qk_norm(module):
    norms = (getattr(module, name, None) for name in ("q_norm", "k_norm"))
    return hasattr(module, "config") and all(isinstance(norm, torch.nn.Module) for norm in norms)


def score_before_norm(module):
    """Keeps the inputs of q_norm and k_norm from their call to the attention of the same layer."""
    module._lighthouse_norms = {}

    def keeper(name):
        def keep(norm, arguments):
            if module.config._attn_implementation == NAME:  # in stage two nobody would take it
                module._lighthouse_norms[name] = arguments[0].detach()
        return keep

    module.q_norm.register_forward_pre_hook(keeper("q"))
    module.k_norm.register_forward_pre_hook(keeper("k"))


def by_token(x, heads):
    """What went into a norm, as [B, N, H, d], given heads [B, H, N, d] that came of it; None where it has another shape."""
    batch, num_heads, seq_len, head_dim = heads.shape
    if x.shape == (batch, seq_len, num_heads, head_dim):
        return x
    if x.shape == heads.shape:
        return x.transpose(1, 2)
    return x.unflatten(-1, (num_heads, head_dim)) if x.shape == (batch, seq_len, num_heads * head_dim) else None


def scores_before_norm(module, query, key, value):
    """(s_qk, s_kq), or None where the model has no QK-norm, or it cannot be seen."""
    if not has_qk_norm(module):
        return None
    kept = getattr(module, "_lighthouse_norms", {})
    q, k = (by_token(kept.pop(name), heads) if name in kept else None for name, heads in (("q", query), ("k", key)))
    if q is None or k is None:
        if not torch.compiler.is_compiling():
            logger.warning_once(f"lighthouse: {type(module).__name__} has QK-norm, and scores are the norms after it, which "
                                "say little about which tokens matter. Call lighthouse_attention.huggingface.prepare(model), "
                                "which scores the tensors before it.")
        return None
    return token_scores(q, k, value)


# Packed documents.

def read_offsets(position_ids, batch):
    """Offsets of the documents in the concatenated rows: a document starts where the position is not one more than before."""
    starts = torch.ones_like(position_ids, dtype=torch.bool)
    starts[:, 1:] = position_ids[:, 1:] != position_ids[:, :-1] + 1
    starts = starts.expand(batch, -1)
    return [*starts.flatten().nonzero().flatten().tolist(), starts.numel()]


offsets_of = HostCopy(read_offsets)
values_of = HostCopy(torch.Tensor.tolist)


def documents_of(module, mask, position_ids, cu_seq_lens, batch):
    """The offsets of packed documents in the rows, laid one after another; None where each row is one document."""
    compiling = torch.compiler.is_compiling()  # transformers then says PACKED of every row
    packed = may_be_packed(module)
    if cu_seq_lens is not None and packed:
        return values_of(cu_seq_lens)
    if mask is None or (compiling and not packed):
        return None
    require(packed, "lighthouse: the row holds several documents, but prepare was told packed=False; leave that out")
    require(position_ids is not None, "lighthouse: the mask is no plain causal one, and there are no position_ids that would "
            "say why; attn_implementation='lighthouse' takes full rows, or packed documents with position_ids")
    offsets = offsets_of(position_ids, batch)
    several = len(offsets) - 1 > batch
    require(several or compiling, "lighthouse: the mask is no plain causal one (blocks of tokens that see one another?), and "
            "position_ids show no packed documents; attn_implementation='lighthouse' attends causally only")
    return offsets if several else None


# What transformers calls.


def lighthouse_mask(batch_size, q_length, kv_length, mask_function=None, attention_mask=None, allow_is_causal_skip=None,
                    use_vmap=False, local_size=None, **kwargs):
    """Instead of a mask: None for plain causal rows, PACKED for documents. Others are refused."""
    if allow_is_causal_skip is None:
        raise ValueError("lighthouse: the model asks for a bidirectional mask; attn_implementation='lighthouse' is causal "
                         "attention only: use 'sdpa' for this model")
    if use_vmap:
        raise ValueError("lighthouse: the model adds a mask function of its own to the causal mask; "
                         "attn_implementation='lighthouse' takes no dense mask: use 'sdpa' for this model")
    check_no_padding(attention_mask)
    return None if allow_is_causal_skip else PACKED


def check_no_padding(attention_mask):
    if attention_mask is None:
        return
    padding = attention_mask.numel() - int(attention_mask.sum())
    require(padding == 0, f"lighthouse: attention_mask hides {padding} of {attention_mask.numel()} tokens; "
            "attn_implementation='lighthouse' takes rows without padding: pack documents into one row "
            "(DataCollatorWithFlattening), or cut rows to one length")


def check_call(module, query, key, attention_mask, dropout, sliding_window, is_causal, extras):
    name = type(module).__name__
    shape = list(getattr(attention_mask, "shape", []))
    require(attention_mask is None or isinstance(attention_mask, str), f"lighthouse: {name} is given a dense attention_mask "
            f"of shape {shape}; attn_implementation='lighthouse' is causal attention without one: leave attention_mask out, "
            "and tell packed documents apart by position_ids")
    require(dropout == 0, "lighthouse: {} has attention dropout {}; it must be 0: set config.attention_dropout = 0", name, dropout)
    require(query.shape[2] == key.shape[2], "lighthouse: {} has {} queries and {} keys, so a cache is in use; lighthouse attends "
            "over full rows: call model.set_attn_implementation('sdpa') before generating", name, query.shape[2], key.shape[2])
    require(sliding_window is None or sliding_window >= key.shape[2], "lighthouse: {} has a sliding window of {} tokens, but the "
            "row has {}; set config.sliding_window = None, or use 'sdpa'", name, sliding_window, key.shape[2])
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    require(causal, f"lighthouse: {name} is not causal; use 'sdpa' for this model")
    for extra in ("softcap", "s_aux", "position_bias"):
        require(extras.get(extra) is None, f"lighthouse: {name} uses {extra}, which a stock attention in the middle does not "
                "know; use 'eager' for this model")


def one_row(x):
    """[B, H, N, d] as [1, B * N, H, d]."""
    return x.transpose(1, 2).flatten(0, 1).unsqueeze(0)


def lighthouse_forward(module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None,
                       is_causal=None, position_ids=None, cu_seq_lens_q=None, **kwargs):
    """query [B, H, N, d], key and value [B, H_kv, N, d] -> ([B, N, H, d], None)."""
    check_call(module, query, key, attention_mask, dropout, sliding_window, is_causal, kwargs)
    batch, _, seq_len, _ = query.shape
    options = options_of(module, seq_len)
    scores = None
    if options is not None and options.get("scorer", "norm") == "norm":
        scores = scores_before_norm(module, query, key, value.transpose(1, 2))
    getattr(module, "_lighthouse_norms", {}).clear()
    offsets = documents_of(module, attention_mask, position_ids, cu_seq_lens_q, batch)
    if offsets is not None and batch > 1:  # documents of several rows are documents of one long row, with their budgets
        query, key, value = one_row(query), one_row(key), one_row(value)
        scores = scores and tuple(score.transpose(0, 1).flatten(1).unsqueeze(0) for score in scores)
        options = options and options | dict(topk=options["topk"] * batch)
    else:
        query, key, value = (x.transpose(1, 2) for x in (query, key, value))
    if options is None:
        out = dense_attention(query, key, value, cu_seqlens=offsets, softmax_scale=scaling)
    else:
        out = lighthouse_attention(query, key, value, scores=scores, cu_seqlens=offsets, softmax_scale=scaling, **options)
    return out.reshape(batch, seq_len, *out.shape[2:]), None


AttentionInterface.register(NAME, lighthouse_forward)
AttentionMaskInterface.register(NAME, lighthouse_mask)


class SwitchToDense(transformers.TrainerCallback):
    """Stage two from optimizer step `step` on. The stage is a function of the step, so a resumed run needs nothing else.

    Args:
        step: the first step that runs dense; must not be negative.
    """

    def __init__(self, step):
        require(step >= 0, f"SwitchToDense: step is {step}; it must be 0 or more")
        self.step = step

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        model = getattr(model, "module", model)  # of DistributedDataParallel
        model = getattr(model, "_orig_mod", model)  # of torch.compile
        if state.global_step >= self.step and model.config._attn_implementation == NAME:
            model.set_attn_implementation("sdpa")
            logger.warning(f"lighthouse: dense attention from step {state.global_step} on")

"""Hugging Face transformers: attn_implementation="lighthouse" for causal decoders.

    import transformers, lighthouse_attention.huggingface as lighthouse   # importing it registers "lighthouse"
    model = transformers.AutoModelForCausalLM.from_pretrained(name, attn_implementation="lighthouse")
    lighthouse.prepare(model, topk=1536, full_attention_layers=[0, 1, 28, 29])
    ...                                                                   # stage one
    model.set_attn_implementation("sdpa")                                 # stage two; or switch_to_dense(model)

`prepare` is optional: without it topk is N / 64 and every layer takes part. The weights and the checkpoint are those of the
plain model in both stages; the options are in its config.json. A model holds no other state of ours, so a copy of it, pickled
or not, is as good as the original.

Several documents go into one row, told apart by `position_ids` that begin again (DataCollatorWithFlattening), by
`cu_seq_lens_q` or by an attention_mask of document numbers; no document sees another. Padding comes last. Causal attention
in training and evaluation only: to generate, switch to "sdpa".

Ranks of a group may share each row: prepare(model, group=group), and the model is given shard_batch(model, batch) (docs/parallel.md).

Reading documents or padding out of a tensor waits for the device once in a forward, not in each layer.
"""

import inspect

import torch
import transformers
from transformers.utils import logging

from .. import versions
from ..checks import integer
from ..errors import require
from ..functional import lighthouse_attention
from ..module import dense_attention, dense_decoder, unwrapped
from ..window import SlidingWindow
from . import named, qk_norm, shards
from .documents import check_numbers, check_values, documents_of, positions_in, without_numbers
from .options import NAME, check_configured, configure, configured, may_be_packed, options_of, span_of, unchecked
from .shared_rows import SharedRows
from .shards import shard_batch

if versions.transformers_problem(transformers.__version__):
    raise ImportError(versions.transformers_problem(transformers.__version__))

PACKED = "packed"  # instead of a mask: the row holds several documents
logger = logging.get_logger(__name__)


def prepare(model, *, group=None, **options):
    """Sets the options of a model's lighthouse attention. Those that are not given stay as `config.lighthouse` has them, which
    is where they are kept (of a model of several parts, in its text configuration), and so in a saved config.json.

    A model that was loaded without attn_implementation="lighthouse" and without such options, to be switched to it later,
    needs this call: it has a model with QK-norm score the tensors before the norm, and masks of document numbers read.

    Args:
        model: a transformers causal decoder, or its configuration.
        topk: k; by default (None) N / 64, rounded up, for each row of N tokens.
        num_levels, pooling_factor, tile_topk, scorer, dilation, cover_prefix: as in lighthouse_attention; scorer is "norm" or
            "dilated".
        full_attention_layers: indices of layers, from 0 on, that stay dense (the paper keeps the first and last two of 30). One
            that is named twice counts once.
        window_layers, span: indices of layers that attend to the latest `span` tokens in stage one, instead of by Lighthouse.
        layers: {layer index: {option: value}} for layers with options of their own.
        group: a ProcessGroup, or a DeviceMesh of one dimension, whose ranks share each row; the model is then called with what
            shard_batch returns. Not kept in the configuration: a model that is loaded again has none.
        packed: rows may hold several documents (True). False promises that none does: then torch.compile makes one graph of
            the model, where it otherwise breaks it to read position_ids, and compiles anew for other documents.

    Returns:
        model.

    Raises:
        ValueError: an option is out of range, or unknown, or a layer does not exist.
    """
    if isinstance(model, transformers.PretrainedConfig):
        require(group is None, "prepare: a group is given with a configuration, which cannot hold it; give it with the model")
        named.settle(model.get_text_config())
        configure(model.get_text_config(), options)
        return model
    config = getattr(unwrapped(model), "config", None) if isinstance(model, torch.nn.Module) else None
    require(isinstance(config, transformers.PretrainedConfig), f"prepare: model is a {type(model).__name__}; it must be a model of "
            "transformers, or its configuration")
    prepare(config, **options)
    for module in model.modules():
        for name, child in module.named_children():
            add_hooks(module, name, child)
    if group is not None:
        shards.share(model, group)
    return model


# Hooks: functions that know nothing but their arguments. They are added when a model is built, so to one that was loaded
# again too.


def add_hooks(module, name, child):
    """On what becomes the child `name` of `module`, or on that, if it is a part of a model that asks for lighthouse."""
    config = vars(module).get("config")
    if not isinstance(config, transformers.PretrainedConfig):
        return
    named.settle(config)
    decoder = isinstance(module, transformers.PreTrainedModel) and isinstance(child, torch.nn.ModuleList)  # of its layers
    if not decoder and name not in qk_norm.NORMS:
        return
    if config._attn_implementation != NAME and not unchecked(config.get_text_config()):
        return
    if decoder:
        if config._attn_implementation == NAME:
            check_configured(config.get_text_config())
        own = type(module).__module__.startswith("transformers.") and not module._can_set_attn_implementation()
        require(not own, f"lighthouse: {type(module).__name__} computes its attention itself, whatever attn_implementation says; take "
                "another model, or leave attn_implementation='lighthouse' out")
        qk_norm.add_hook(module, read_mask, with_kwargs=True)
    else:
        qk_norm.add_hook(module, qk_norm.enter_layer)
        qk_norm.add_hook(child, qk_norm.KEEPERS[qk_norm.NORMS[name]])


def read_mask(model, arguments, named):
    """Before a model's forward: what transformers would drop of attention_mask, see documents.without_numbers."""
    shards.check_shared(model, NAME)
    if model.config._attn_implementation != NAME or (torch.compiler.is_compiling() and not may_be_packed(model.config)):
        return None
    refuse_tracing()
    if arguments:
        parameters = list(inspect.signature(model.forward).parameters)
        if parameters[0] != "input_ids":
            return None
        named = dict(zip(parameters, arguments)) | named
    tokens = named.get("input_ids") if named.get("input_ids") is not None else named.get("inputs_embeds")
    if tokens is None:
        return None
    if may_be_packed(model.config):
        check_values(input_ids=tokens)
    mask, position_ids = named.get("attention_mask"), named.get("position_ids")
    require(isinstance(mask, torch.Tensor) or not (isinstance(mask, (list, tuple)) or hasattr(mask, "dtype")), "lighthouse: attention_mask "
            f"is a {type(mask).__name__}; it must be a tensor: torch.as_tensor(attention_mask) makes one")
    cached = named.get("past_key_values") is not None  # then a mask is longer than the tokens
    if isinstance(mask, torch.Tensor) and mask.dim() <= 2 and not (cached and mask.dim() == 2 and mask.shape[1] > tokens.shape[1]):
        require(mask.shape in (tokens.shape[:2], (1, tokens.shape[1])), f"lighthouse: attention_mask is {list(mask.shape)}; it must be "
                f"{list(tokens.shape[:2])}, as the tokens are")
        mask, position_ids = without_numbers(mask.expand(tokens.shape[:2]), position_ids)
    check_numbers("seq_idx", named.get("seq_idx"), *tokens.shape[:2])
    if position_ids is None and "shard_offsets" not in named:
        position_ids = positions_in(*tokens.shape[:2], tokens.device, named.get("cu_seq_lens_q"), named.get("seq_idx"))
    told = dict(attention_mask=mask, position_ids=position_ids)
    return (), named | {name: value for name, value in told.items() if value is not named.get(name)}


def refuse_tracing():
    if torch.jit.is_tracing():
        raise NotImplementedError("lighthouse: tracing (torch.jit.trace, ONNX without dynamo) is not supported, as lengths would "
                                  "become constants; use torch.export with prepare(model, packed=False)")


# What transformers calls.


def lighthouse_mask(attention_mask=None, allow_is_causal_skip=None, use_vmap=False, **kwargs):
    """Instead of a mask: None for plain causal rows, PACKED for documents, [B, N] for padding. Others are refused."""
    refuse_tracing()
    qk_norm.leave_layer()  # one that an error ended
    if allow_is_causal_skip is None:
        raise ValueError("lighthouse: the model asks for a bidirectional mask; attn_implementation='lighthouse' is causal "
                         "attention only: use 'sdpa' for this model")
    if use_vmap:
        raise ValueError("lighthouse: the model adds a mask function of its own to the causal mask; "
                         "attn_implementation='lighthouse' takes no dense mask: use 'sdpa' for this model")
    if attention_mask is not None:
        if not attention_mask.all():
            return attention_mask
        if not torch.compiler.is_compiling() and attention_mask.shape[-1] == kwargs.get("q_length", attention_mask.shape[-1]):
            logger.warning_once("lighthouse: this model was not built for attn_implementation='lighthouse', so that only zeros of its "
                                "attention_mask are seen, no document numbers. Call lighthouse_attention.huggingface.prepare(model).")
    return None if allow_is_causal_skip else PACKED


def check_call(module, query, key, attention_mask, dropout, sliding_window, is_causal, extras):
    name = type(module).__name__
    require(query.shape[2] == key.shape[2], "lighthouse: {} has {} queries and {} keys, so a cache is in use; lighthouse attends "
            "over full rows: call model.set_attn_implementation('sdpa') before generating", name, query.shape[2], key.shape[2])
    shape = list(getattr(attention_mask, "shape", []))
    require(shape in ([], [query.shape[0], query.shape[2]]), f"lighthouse: {name} is given a dense attention_mask "
            f"of shape {shape}; attn_implementation='lighthouse' is causal attention without one: leave attention_mask out, "
            "and tell packed documents apart by position_ids")
    require(dropout == 0, "lighthouse: {} has attention dropout {}; it must be 0: set config.attention_dropout = 0", name, dropout)
    require(sliding_window is None or sliding_window >= key.shape[2], "lighthouse: {} has a sliding window of {} tokens, but the "
            "row has {}; set config.sliding_window = None, or use 'sdpa'", name, sliding_window, key.shape[2])
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    require(causal, f"lighthouse: {name} is not causal; use 'sdpa' for this model")
    for extra in ("softcap", "s_aux", "position_bias"):
        require(extras.get(extra) is None, f"lighthouse: {name} uses {extra}, which a stock attention in the middle does not "
                "know; use 'eager' for this model")


def documents_in(layer, mask, batch, seq_len, *, position_ids, **said):
    """The offsets of packed documents and padding in each row; None where each row is one document."""
    compiling, packed = torch.compiler.is_compiling(), may_be_packed(layer.config)
    padding = mask if isinstance(mask, torch.Tensor) else None
    if not packed and (compiling or mask is None and not any(x is not None for x in said.values())):
        return None
    require(position_ids is not None or not isinstance(mask, str) or said["cu_seq_lens_q"] is not None, "lighthouse: the mask is "
            "no plain causal one, and there are no position_ids that would say why; attn_implementation='lighthouse' takes full "
            "rows, or packed documents with position_ids")
    documents = documents_of(batch, seq_len, mask=padding, position_ids=position_ids if packed or padding is None else None, **said)
    require(packed or documents is None or padding is not None, "lighthouse: the row holds several documents, but prepare was told "
            "packed=False; leave that out")
    require(documents is not None or not isinstance(mask, str) or compiling, "lighthouse: the mask is no plain causal one (blocks "
            "of tokens that see one another?), and position_ids show no packed documents; attn_implementation='lighthouse' attends "
            "causally only")
    return documents


def warn(layer, scores, scorer):
    """Once for each of these; not in a traced graph."""
    name = type(layer).__name__
    if scorer == "norm" and scores is None and qk_norm.norms_of(layer):
        logger.warning_once(f"lighthouse: {name} has QK-norm, and scores are the norms after it, which say little about which "
                            "tokens matter. Call lighthouse_attention.huggingface.prepare(model), which scores the tensors before "
                            "it.")
    if not layer.training:
        own = "" if configured(layer.config) else (
            " This model was never prepared: topk is N / 64, in all layers. Beside a model with other options (as the reference of "
            "DPO, which trainers load again) give it the same, by prepare(model, ...).")
        logger.warning_once(f"lighthouse: {name} is in eval() under attn_implementation='lighthouse', whose selection looks ahead: the "
                            "score of a token depends on later ones. To judge a model, call model.set_attn_implementation('sdpa') "
                            "first; a frozen reference of a model in stage one is right as it is, and must leave it with the model: "
                            "SwitchToDense(step, reference)." + own)


def lighthouse_forward(module, query, key, value, attention_mask, dropout=0.0, scaling=None, sliding_window=None,
                       is_causal=None, position_ids=None, cu_seq_lens_q=None, cu_seq_lens_k=None, seq_idx=None, shard_offsets=None,
                       **kwargs):
    """query [B, H, N, d], key and value [B, H_kv, N, d] -> ([B, N, H, d], None)."""
    refuse_tracing()
    kept = qk_norm.leave_layer()
    check_call(module, query, key, attention_mask, dropout, sliding_window, is_causal, kwargs)
    batch, _, seq_len, _ = query.shape
    group = getattr(module, "lighthouse_group", None)
    if group is not None:
        shards.check_call(type(module).__name__, group, shard_offsets, attention_mask)
    named.settle(module.config)
    options, span, scores = options_of(module, seq_len if group is None else shard_offsets[-1]), span_of(module), None
    if getattr(module, "lighthouse_dense", False):
        options = span = None
    if options is not None:
        scorer = options.get("scorer", "norm")
        scores = qk_norm.scores_before_norm(kept, query, key, value) if scorer == "norm" and kept else None
        if not torch.compiler.is_compiling():
            warn(module, scores, scorer)
    shared = {} if group is None else dict(group=group, shard_offsets=shard_offsets)
    documents = None if shared else documents_in(module, attention_mask, batch, seq_len, position_ids=position_ids,
                                                 cu_seq_lens_q=cu_seq_lens_q, cu_seq_lens_k=cu_seq_lens_k, seq_idx=seq_idx)

    def attend(q, k, v, scores, offsets):
        if options is None:
            how = dict(softmax_scale=scaling) if span is None else dict(attention=SlidingWindow(span, scaling))
            return dense_attention(q, k, v, cu_seqlens=offsets, **how, **shared)
        return lighthouse_attention(q, k, v, scores=scores, cu_seqlens=offsets, softmax_scale=scaling, **shared, **options)

    heads = [x.transpose(1, 2) for x in (query, key, value)]
    if documents is None:
        return attend(*heads, scores, cu_seq_lens_q if shared else None), None
    return torch.cat([attend(*(x[row:row + 1] for x in heads), scores and [score[row:row + 1] for score in scores], offsets)
                      for row, offsets in enumerate(documents)]), None


def register():
    """In place of an earlier import of this module in the process, if there was one."""
    earlier = transformers.AttentionInterface().get(NAME)
    if earlier is not None:  # models that were built then have its hooks
        earlier.registration.remove()
        qk_norm.current = earlier.current
    lighthouse_forward.current = qk_norm.current
    lighthouse_forward.registration = torch.nn.modules.module.register_module_module_registration_hook(add_hooks)
    transformers.AttentionInterface.register(NAME, lighthouse_forward)
    transformers.AttentionMaskInterface.register(NAME, lighthouse_mask)
    named.install()


register()


class SwitchToDense(transformers.TrainerCallback):
    """Stage two from optimizer step `step` on. The stage is a function of the step, so a resumed run needs nothing else.

    Args:
        step: the first step that runs dense; must not be negative.
        others: models that switch with the one that is trained, as the reference of DPO: trainer.ref_model; None of them counts
            as none.

    Raises:
        ValueError: step is no integer of 0 or more, or one of the others is no model.
    """

    def __init__(self, step, *others):
        self.step, self.others = integer("SwitchToDense", "step", step), [other for other in others if other is not None]
        require(self.step >= 0, f"SwitchToDense: step is {step}; it must be 0 or more")
        for other in self.others:
            require(isinstance(other, torch.nn.Module), f"SwitchToDense: a {type(other).__name__} is given beside the step; it must be a "
                    "model, which switches too")

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        for each in map(unwrapped, (model, *self.others)):
            if state.global_step >= self.step and dense_decoder(each):
                logger.warning(f"lighthouse: dense attention from step {state.global_step} on")

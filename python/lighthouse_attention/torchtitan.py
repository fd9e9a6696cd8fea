"""torchtitan 0.3: an inner attention for its decoders, a configuration that trains its debug model, and the stage switch.

    torchrun --nproc_per_node=8 -m torchtitan.train --module lighthouse_attention.torchtitan \\
        --config llama3_debugmodel_lighthouse --lighthouse_steps 8

For another model, change its configuration: `use_lighthouse(config, topk=...)`. Packed documents come as torchtitan's
VarlenMetadata, of which this is one more backend; reading their offsets waits for the device once in a forward. Compiled blocks
(full graphs, which know no values) take them as a tensor instead: every layer then waits for the device, and a Lighthouse layer once more
in backward, where it runs its attention's forward again. With context parallelism packed documents need the model uncompiled:
`--compile.components loss`. Tensor parallelism and FSDP are torchtitan's; context parallelism is ours, in place of its own, which
refuses packed documents: `--parallelism.context_parallel_degree 2 --parallelism.spmd_backend partial_dtensor`.
"""

import dataclasses
from dataclasses import dataclass

import torch
from torchtitan.distributed import activation_checkpoint
from torchtitan.models.common.attention import VarlenAttention, VarlenMetadata
from torchtitan.protocols.module import Module
from torchtitan.trainer import Trainer

from . import library
from .checks import boolean, integer
from .errors import require
from .functional import layout_of, lighthouse_attention
from .host_copy import HostCopy
from .module import dense_attention
from .operators import ops
from .torchtitan_context import SharedRow, loss_of_any_length, share_rows, shared_dims
from .window import SlidingWindow, checked_layers, checked_span

values_of = HostCopy(torch.Tensor.tolist)


def offsets_of(metadata, batch):
    """Host offsets of the documents of all rows, laid one after another; None where each row is one document. A traced graph, which
    knows no values, has the tensor."""
    if metadata is None:
        return None
    if torch.compiler.is_compiling():
        return metadata.cu_seq_q if metadata.cu_seq_q.shape[0] - 1 > batch else None
    offsets = list(metadata.cu_seq_q_host) if metadata.cu_seq_q_host is not None else values_of(metadata.cu_seq_q)
    return offsets if len(offsets) - 1 > batch else None


class LighthouseInnerAttention(VarlenAttention):
    """lighthouse_attention between torchtitan's projections. `enabled = False` is dense attention (stage two)."""

    @dataclass(kw_only=True, slots=True)
    class Config(VarlenAttention.Config):
        topk: int | None = None
        """k, over a row of N tokens; None: N / 64, rounded up."""
        num_levels: int = 3
        pooling_factor: int = 4
        tile_topk: int = 128
        scorer: str = "norm"
        """norm or dilated"""
        dilation: int = 4
        cover_prefix: bool = True
        span: int | None = None
        """Tokens of the sliding window of a layer that has one in stage one, in the place of a selection"""
        enabled: bool = True
        """False: a layer that stays dense in both stages"""

    def __init__(self, config: Config) -> None:
        Module.__init__(self)  # not VarlenAttention's, which may ask for a FlashAttention package
        self.window_size = config.window_size
        require(config.window_size == (-1, 0), f"LighthouseInnerAttention: window_size is {config.window_size}; it must be "
                "(-1, 0), causal attention")
        require(config.scorer in ("norm", "dilated"), f"LighthouseInnerAttention: scorer is '{config.scorer}'; with torchtitan "
                "it must be norm or dilated")
        self.topk = config.topk
        name = "LighthouseInnerAttention"
        self.options = dict(num_levels=config.num_levels, pooling_factor=config.pooling_factor, tile_topk=config.tile_topk,
                            scorer=config.scorer, dilation=integer(name, "dilation", config.dilation),
                            cover_prefix=boolean(name, "cover_prefix", config.cover_prefix))
        require(config.dilation >= 1, f"{name}: dilation is {config.dilation}; it must be at least 1")
        topk = 1 if config.topk is None else config.topk
        library.plan(name, 1, layout_of(name, config.num_levels, config.pooling_factor, topk, config.tile_topk))  # for its checks
        self.span = None if config.span is None else checked_span(name, config.span)
        self.enabled = config.enabled

    @property
    def selects(self):
        return self.enabled and self.span is None

    def layout_of(self, seq_len, num_rows):
        """Options of a row of `num_rows` times `seq_len` tokens."""
        topk = -(-seq_len // 64) if self.topk is None else self.topk
        return dict(topk=topk * num_rows, **{name: self.options[name] for name in ("num_levels", "pooling_factor", "tile_topk")})

    def forward(self, q_BLNH, k_BLNH, v_BLNH, *, attention_masks=None, scale=None, out_transform=None, **kwargs):
        """q [B, L, N, H], k and v [B, L, N_kv, H] -> [B, L, N, H]; documents of all rows by `attention_masks`."""
        require(attention_masks is None or isinstance(attention_masks, (VarlenMetadata, SharedRow)), "LighthouseInnerAttention: "
                f"attention_masks is a {type(attention_masks).__name__}; it must be VarlenMetadata, or None for plain rows")
        require(out_transform is None, "LighthouseInnerAttention: out_transform needs a log-sum-exp for every token, which a "
                "sum of gathered rows does not have; use VarlenAttention for this layer")
        batch, seq_len = q_BLNH.shape[:2]
        q, k, v = q_BLNH, k_BLNH, v_BLNH
        if isinstance(attention_masks, SharedRow):
            offsets, shard_offsets, group, num_rows = attention_masks
            seq_len, shared = shard_offsets[-1] // num_rows, dict(group=group, shard_offsets=shard_offsets)
        else:
            offsets, num_rows, shared = offsets_of(attention_masks, batch), 1, {}
            if offsets is not None:  # documents of several rows are documents of one long row, with their budgets
                q, k, v = (x.flatten(0, 1).unsqueeze(0) for x in (q, k, v))
                num_rows = batch
        if self.selects:
            options = self.options | self.layout_of(seq_len, num_rows)
            out = lighthouse_attention(q, k, v, cu_seqlens=offsets, softmax_scale=scale, **shared, **options)
        else:
            how = dict(attention=SlidingWindow(self.span, scale)) if self.enabled else dict(softmax_scale=scale)
            out = dense_attention(q, k, v, cu_seqlens=offsets, **how, **shared)
        return out.reshape(q_BLNH.shape)


class SelectiveAC(activation_checkpoint.SelectiveAC):
    """torchtitan's selective activation checkpointing, which keeps the selection and its rows too: no token is scored twice."""

    @dataclass(kw_only=True, slots=True)
    class Config(activation_checkpoint.SelectiveAC.Config):
        pass

    def get_save_ops(self):
        return super().get_save_ops() | {ops._gather_by_norm.default, ops._select_entries.default, ops._packed_attention.default,
                                         ops._packed_full_attention.default}


class LighthouseTrainer(Trainer):
    """torchtitan's trainer with two stages: dense attention from step `lighthouse_steps` + 1 on (steps count from 1). The
    stage is a function of the step, so a resumed run needs nothing else. SelectiveAC is in place of torchtitan's."""

    @dataclass(kw_only=True, slots=True)
    class Config(Trainer.Config):
        lighthouse_steps: int | None = None
        """Steps of stage one; None: all of them."""

    def __init__(self, config):
        activations = config.activation_checkpoint
        if type(activations) is activation_checkpoint.SelectiveAC.Config:
            fields = {field.name: getattr(activations, field.name) for field in dataclasses.fields(activations)}
            config.activation_checkpoint = SelectiveAC.Config(**fields)
        super().__init__(config)
        if self.parallel_dims.cp > 1:
            self.loss_fn = loss_of_any_length(self.loss_fn)

    def init_distributed(self):
        return shared_dims(self.config, super().init_distributed())

    def attention_layers(self):
        return [module for model in self.model_parts for module in model.modules() if isinstance(module, LighthouseInnerAttention)]

    def post_dataloading_process(self, input_dict, labels):
        inputs, labels, extra = super().post_dataloading_process(input_dict, labels)
        if self.parallel_dims.cp == 1:
            return inputs, labels, extra
        layers, num_tokens = self.attention_layers(), labels.numel()
        selecting = next((layer for layer in layers if layer.selects), layers[0])
        offsets = offsets_of(extra.get("attention_masks"), len(inputs))
        inputs, labels, extra = share_rows(inputs, labels, extra, offsets, selecting.layout_of, self.parallel_dims.get_mesh("cp"))
        self.ntokens_seen += labels.numel() - num_tokens
        return inputs, labels, extra

    def train_step(self, data_iterator):
        steps = self.config.lighthouse_steps
        if steps is not None and self.step > steps:
            for module in self.attention_layers():
                module.enabled = False
        return super().train_step(data_iterator)


def use_lighthouse(config, *, lighthouse_steps=None, full_attention_layers=(), window_layers=(), span=None, **options):
    """A torchtitan configuration of a decoder with grouped-query attention, with lighthouse attention in its layers.

    Args:
        config: a Trainer.Config with model_spec; it is changed.
        lighthouse_steps: steps of stage one; None: all.
        full_attention_layers: indices of layers, from 0 on, that stay dense in both stages. One that is named twice counts once.
        window_layers, span: indices of layers that attend to the latest `span` tokens in stage one, and select nothing.
        options: fields of LighthouseInnerAttention.Config.

    Returns:
        A LighthouseTrainer.Config.

    Raises:
        ValueError: a layer does not exist, or is in both, or there is a span without layers, or layers without a span.
    """
    layers = config.model_spec.model.layers
    dense, windows, span = checked_layers("use_lighthouse", full_attention_layers, window_layers, span, len(layers))
    for index, layer in enumerate(layers):
        layer.attention.inner_attention = LighthouseInnerAttention.Config(
            enabled=index not in dense, span=span if index in windows else None, **options)
    config.training.disable_cuda_graphs = True  # the lengths of documents change
    fields = {field.name: getattr(config, field.name) for field in dataclasses.fields(Trainer.Config)}
    return LighthouseTrainer.Config(**fields, lighthouse_steps=lighthouse_steps)


def llama3_debugmodel_lighthouse():
    """torchtitan's Llama 3 debug model, 2,048 tokens a row: 8 of 10 steps in stage one."""
    from torchtitan.models.llama3.config_registry import llama3_debugmodel_varlen_attn
    return use_lighthouse(llama3_debugmodel_varlen_attn(), topk=32, lighthouse_steps=8, full_attention_layers=(0, 5))


def llama3_8b(seq_len, **options):
    """Llama 3 8B, one row that 8 GPUs share; every layer is computed again in backward."""
    from torchtitan.models.llama3.config_registry import llama3_8b, model_registry
    config = llama3_8b()
    config.model_spec = model_registry("8B", attn_backend="varlen")
    for layer in config.model_spec.model.layers:
        layer.attention.rope = dataclasses.replace(layer.attention.rope, max_seq_len=1048576)
    config.training.seq_len, config.activation_checkpoint = seq_len, activation_checkpoint.FullAC.Config()
    config.parallelism.context_parallel_degree, config.parallelism.spmd_backend = 8, "partial_dtensor"
    return use_lighthouse(config, full_attention_layers=(0, 1, 30, 31), **options)


def llama3_8b_lighthouse():
    """131,072 tokens, topk N / 64; more by `--training.seq_len`."""
    return llama3_8b(131072)


def llama3_8b_lighthouse_256k():
    return llama3_8b(262144)


def llama3_8b_lighthouse_512k():
    return llama3_8b(524288)


def llama3_8b_lighthouse_1m():
    """With four levels, of which 65,536 rows are gathered (docs/tuning.md)."""
    return llama3_8b(1048576, num_levels=4, topk=4096)

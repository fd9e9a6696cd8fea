"""Context parallelism under torchtitan 0.3, in place of its own, which has no packed documents: rows are cut at ends of tiles, and
positions, documents and offsets stay those of the whole row."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torchtitan.components.loss import IGNORE_INDEX, ChunkedLossWrapper
from torchtitan.distributed.parallel_dims import ParallelDims

from .errors import require
from .shards import TokenShards


class SharedRow(NamedTuple):
    """What the attention layers are given instead of masks."""

    cu_seqlens: list | None  # of the whole row
    shard_offsets: list
    group: str
    num_rows: int  # of the batch, one behind another in this row: each adds its topk


class SharedRows(ParallelDims):
    """Dimensions with ranks that share rows, of which torchtitan sees the meshes, and neither cuts rows nor wraps attention."""

    cp_enabled = property(lambda self: False)
    dp_cp_enabled = fsdp_enabled = property(lambda self: True)


def shared_dims(config, dims):
    """`dims` with our context parallelism in place of torchtitan's. Its degree in `config` becomes 1, as with another torchtitan
    refuses varlen attention.

    Raises:
        ValueError: something else in the configuration does not go with it.
    """
    if dims.cp == 1:
        return dims
    name = "torchtitan with Lighthouse and context parallelism"
    require(dims.spmd_backend == "partial_dtensor", f"{name}: parallelism.spmd_backend is '{dims.spmd_backend}'; it must be "
            "'partial_dtensor'")
    require(dims.pp == 1, f"{name}: parallelism.pipeline_parallel_degree is {dims.pp}; it must be 1")
    require(not config.validator.enable, f"{name}: validator.enable is set, but it would read whole rows on every rank; "
            "leave it out")
    shared = SharedRows.from_config(config.parallelism, dims.world_size)
    config.parallelism.context_parallel_degree = 1
    return shared


def share_rows(inputs, labels, extra, offsets, layout_of, mesh):
    """This rank's part of a batch.

    Args:
        inputs, labels: [B, N].
        extra: arguments of the model's forward; `positions` [B, N] of tokens in their documents.
        offsets: of packed documents of all rows, one behind another; None where each row is one document.
        layout_of: {option of TokenShards: value} of a row of N tokens that is `num_rows` rows of the batch.
        mesh: of the ranks that share rows.

    Returns:
        The same for the model, labels cut as inputs are, and a SharedRow as `attention_masks`.
    """
    batch, seq_len = inputs.shape
    positions = extra.get("positions")
    if positions is None:
        positions = torch.arange(seq_len, device=inputs.device).expand(batch, -1)
    num_rows = 1 if offsets is None else batch
    if num_rows > 1:
        inputs, labels, positions = (x.reshape(1, -1) for x in (inputs, labels, positions))
    shards = TokenShards(inputs.shape[1], mesh, **layout_of(seq_len, num_rows), cu_seqlens=offsets)
    row = SharedRow(offsets, shards.offsets, mesh.get_group().group_name, num_rows)
    return shards.take(inputs), shards.take(labels), extra | dict(positions=shards.take(positions), attention_masks=row)


def loss_of_any_length(loss):
    """torchtitan's chunked loss, for ranks whose number of tokens its chunks do not divide: tokens without a target follow."""
    if not isinstance(loss, ChunkedLossWrapper):
        return loss

    def of_any_length(hidden, labels, *arguments, **by_token):
        missing = -labels.shape[1] % loss.num_chunks
        hidden, labels = F.pad(hidden, (0, 0, 0, missing)), F.pad(labels, (0, missing), value=IGNORE_INDEX)
        return loss(hidden, labels, *arguments, **{name: F.pad(x, (0, missing)) for name, x in by_token.items()})

    return of_any_length

"""Models whose ranks share each row of a batch (context parallelism): `prepare(model, group=group)`, and `shard_batch`.

A model and its attention layers know the group by its name, in the attribute `lighthouse_group`, which copies and pickles keep and
checkpoints do not have.
"""

import torch
import transformers

from .. import context
from ..functional import require
from ..module import unwrapped
from ..shards import TokenShards
from .documents import documents_of, without_numbers
from .options import options_of

OF_DOCUMENTS = ("attention_mask", "position_ids", "cu_seq_lens_q", "cu_seq_lens_k", "seq_idx", "max_length_q", "max_length_k")


def attention_layers(model):
    return [module for module in model.modules() if getattr(module, "layer_idx", None) is not None]


def share(model, group):
    name = context.group_name("prepare", group)
    decoders = [module for module in model.modules() if isinstance(module, transformers.PreTrainedModel)]
    for module in [*decoders, *attention_layers(model)]:
        module.lighthouse_group = name


def check_shared(model, implementation):
    """Before a forward of a decoder: another attention would see the tokens of one rank only."""
    group = getattr(model, "lighthouse_group", None)
    require(group is None or model.config._attn_implementation == implementation, "lighthouse: the tokens of this model are "
            f"shared by the group '{group}', but its attn_implementation is '{model.config._attn_implementation}', which would attend to those "
            f"of one rank; leave it '{implementation}', and for dense attention (stage two) call switch_to_dense(model)")


def check_call(name, group, shard_offsets, attention_mask):
    require(shard_offsets is not None, f"lighthouse: {name} shares its tokens with the group '{group}', but is not told where "
            "they are cut; give the model what huggingface.shard_batch(model, batch) returns")
    require(not isinstance(attention_mask, torch.Tensor), f"lighthouse: {name} is given an attention_mask for a part of a row; "
            "give that to huggingface.shard_batch, which makes documents of it")


def shard_batch(model, batch):
    """This rank's part of a batch, which all ranks of the model's group hold alike: the arguments of the model's forward.

    The loss is then that of this rank's targets, divided by the number of targets of all ranks: losses, and gradients, of the ranks
    are to be summed. One whose targets are all masked adds zero.

    Args:
        model: prepared with `group`; wrapped or not.
        batch: input_ids [B, N]; labels [B, N], not shifted; attention_mask, position_ids, cu_seq_lens_q, cu_seq_lens_k, seq_idx as
            the model takes them for whole rows; num_items_in_batch, by default the targets of this batch. Several documents, or
            padding, need B = 1.

    Raises:
        ValueError: something else is in the batch; what tells documents apart disagrees; or there are fewer tiles than ranks.
    """
    model = unwrapped(model)
    group = getattr(model, "lighthouse_group", None)
    require(group is not None, "shard_batch: the model has no group; call huggingface.prepare(model, group=group)")
    unknown = set(batch) - {"input_ids", "labels", "num_items_in_batch", *OF_DOCUMENTS}
    require(not unknown, f"shard_batch: the batch has '{min(unknown, default='')}', of which it is not known how to cut it")
    tokens, labels = batch["input_ids"], batch.get("labels")
    seq_len = tokens.shape[1]
    offsets, position_ids = documents_and_positions(batch)
    shards = TokenShards(seq_len, group, **layout_of(model, seq_len, context.group_size("shard_batch", group)), cu_seqlens=offsets)
    part = dict(input_ids=shards.take(tokens), shard_offsets=shards.offsets, cu_seq_lens_q=offsets,
                position_ids=shards.positions(tokens.device) if position_ids is None else shards.take(position_ids))
    if labels is None:
        return part
    targets = torch.nn.functional.pad(labels[:, 1:], (0, 1), value=-100)
    count = batch.get("num_items_in_batch", (targets != -100).sum())
    return part | dict(labels=shards.take(labels), shift_labels=shards.take(targets).contiguous(), num_items_in_batch=count)


def documents_and_positions(batch):
    """Offsets of the documents of the row, None where each row is one; position_ids, None where they are not given."""
    said = {name: batch.get(name) for name in OF_DOCUMENTS[:5]}
    mask, position_ids = said.pop("attention_mask"), said.pop("position_ids")
    if mask is not None:
        mask, position_ids = without_numbers(mask, position_ids)
    documents = documents_of(*batch["input_ids"].shape, mask=mask, position_ids=position_ids, **said)
    require(documents is None or len(documents) == 1, "shard_batch: the batch has several documents, or padding, in "
            f"{len(documents or ())} rows; ranks share packed documents in one row: concatenate them (DataCollatorWithFlattening)")
    return documents and documents[0], position_ids


def layout_of(model, seq_len, num_ranks):
    """By which rows are cut: of the first layer that selects, or equal parts where none does."""
    selecting = [options for options in (options_of(layer, seq_len) for layer in attention_layers(model)) if options is not None]
    if not selecting:
        return dict(num_levels=1, topk=num_ranks, tile_topk=1)
    return {name: selecting[0][name] for name in ("num_levels", "pooling_factor", "topk", "tile_topk") if name in selecting[0]}

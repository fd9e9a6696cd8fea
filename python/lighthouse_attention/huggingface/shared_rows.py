"""transformers' Trainer for a model whose ranks share rows."""

import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler

from .. import context
from ..functional import require
from ..module import unwrapped
from .shards import shard_batch


class SharedRows:
    """`class MyTrainer(huggingface.SharedRows, transformers.Trainer)`: the ranks of the group of its model (`prepare`) are given
    parts of the same rows, other groups other rows. The loss is that of all targets of a step, as the Trainer has it. Training
    only: evaluate with one process.

    Raises:
        ValueError: the model has no group, or one of other than consecutive ranks, as mesh["cp"] of a mesh ("dp", "cp") has.
    """

    def get_train_dataloader(self):
        model, dataset = unwrapped(self.model), self.train_dataset
        collate = self._get_collator_with_removed_columns(self.data_collator, "training")  # as the Trainer does
        group = context.process_group("SharedRows", getattr(model, "lighthouse_group", None))
        ranks, size = dist.get_process_group_ranks(group), group.size()
        require(ranks == list(range(ranks[0], ranks[0] + size)) and ranks[0] % size == 0, "SharedRows: the group of the model has "
                f"the ranks {ranks}; they must be consecutive, as those of mesh['cp'] of a mesh ('dp', 'cp')")
        sampler = DistributedSampler(dataset, dist.get_world_size() // size, ranks[0] // size,
                                     seed=self.args.data_seed or self.args.seed)

        def part(rows):
            return shard_batch(model, collate(rows))

        loader = DataLoader(dataset, self._train_batch_size, sampler=sampler, collate_fn=part,
                            drop_last=self.args.dataloader_drop_last, generator=torch.Generator())  # not dropout's
        loader.set_epoch = sampler.set_epoch  # which the Trainer calls
        return loader

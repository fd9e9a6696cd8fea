"""torchtitan's trainer on Gloo ranks of a CPU, for which it asks for a GPU in a few places; run by test_torchtitan.py."""

import gc
import os
from pathlib import Path

import torch
import torch.distributed as dist
from ranks import run_program
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import distribute_tensor

SEQ_LEN, ROWS, STEPS = 256, 4, 4
LENGTHS = [[100, 1, 155], [256], [17, 239], [128, 128]]


class Rows:
    """ROWS rows a step, of several documents each; those of a dp rank, `batch` at a time."""

    def __init__(self, dp_world_size, dp_rank, local_batch_size, **unused):
        self.rank, self.count, self.batch, self.step = dp_rank, ROWS // dp_world_size, local_batch_size, 0

    def state_dict(self):
        return dict(step=self.step)

    def load_state_dict(self, state):
        self.step = state["step"]

    def __iter__(self):
        for step in range(self.step, STEPS):
            self.step = step + 1
            mine = range(self.rank * self.count, (self.rank + 1) * self.count)
            for first in mine[::self.batch]:
                rows = [self.row(step, row) for row in range(first, first + self.batch)]
                tokens, labels, positions = map(torch.stack, zip(*rows))
                yield dict(input=tokens, positions=positions), labels

    @staticmethod
    def row(step, row):
        text = torch.randint(0, 500, (SEQ_LEN + 1,), generator=torch.Generator().manual_seed(step * ROWS + row))
        labels = text[1:].clone()
        labels[:130 if row == 1 else 20] = -100  # with two ranks, one of them has no target in row 1
        return text[:-1], labels, torch.cat([torch.arange(length) for length in LENGTHS[row]])


def trainer_config(batch, cp=1, tp=1, replicate=1, span=None, selective=False, folder=None, load_step=-1):
    """Of a run; `replicate` groups of ranks have the same shards of weights (HSDP); with a span
    the dense layer has a window. With a folder, it saves after every step."""
    from lighthouse_attention import torchtitan as integration
    from torchtitan.distributed.activation_checkpoint import SelectiveAC
    config = integration.llama3_debugmodel_lighthouse()
    config.activation_checkpoint = SelectiveAC.Config() if selective else None
    first = dict(full_attention_layers=(0,)) if span is None else dict(window_layers=(0,), span=span)
    config = integration.use_lighthouse(config, topk=8, tile_topk=2, num_levels=2, lighthouse_steps=2, **first)
    del config.model_spec.model.layers[2:]
    config.parallelism.context_parallel_degree, config.parallelism.data_parallel_replicate_degree = cp, replicate
    config.parallelism.tensor_parallel_degree, config.parallelism.spmd_backend = tp, "partial_dtensor"
    training = config.training
    training.seq_len, training.local_batch_size, training.global_batch_size, training.steps = SEQ_LEN, batch, ROWS, STEPS
    training.mixed_precision_param = "float32"
    config.checkpoint.enable, config.checkpoint.interval, config.checkpoint.load_step = folder is not None, 1, load_step
    config.dump_folder = folder or config.dump_folder
    config.validator.enable = config.compile.enable = False
    config.debug.seed = 1
    return config


@torch.no_grad()
def same_weights(model):
    """Those that torchtitan draws depend on how they are sharded."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        whole = torch.ones(parameter.shape) if parameter.dim() == 1 else 0.05 * torch.randn(parameter.shape, generator=generator)
        parameter.copy_(distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None))


def sum_as_gloo_does(trainer):
    for module in trainer.model_parts[0].modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # Gloo has no other sum by 1.0


def train(**options):
    """(loss, norm of the gradient) of each step, over all ranks."""
    config = trainer_config(**options)
    config.tokenizer, config.dataloader = Part(lambda **unused: None), Part(Rows)
    trainer = config.build()
    sum_as_gloo_does(trainer)
    same_weights(trainer.model_parts[0])
    steps = []
    trainer.metrics_processor.log = lambda step, loss, largest, norm, **more: steps.append((float(loss), float(norm)))
    trainer.train()
    trainer.close()
    return steps


def train_each(runs):
    """Results of several runs in one process: (port, options of train) each."""
    import torchtitan_on_cpu  # noqa: F401
    results = []
    for os.environ["MASTER_PORT"], options in runs:
        results.append(train(**options))
        dist.destroy_process_group()
    return results


def bench(*arguments):
    """What bench/torchtitan_steps.py prints."""
    import torchtitan_on_cpu  # noqa: F401
    from lighthouse_attention.torchtitan import LighthouseTrainer
    init = LighthouseTrainer.__init__

    def init_for_gloo(self, config):
        kept = sum(thing.numel() for thing in gc.get_objects() if issubclass(type(thing), torch.Tensor))
        assert kept < 10000, f"{kept} elements of the stage before are kept"
        init(self, config)
        sum_as_gloo_does(self)

    LighthouseTrainer.__init__ = init_for_gloo
    return run_program(str(Path(__file__).parents[2] / "bench" / "torchtitan_steps.py"), arguments)


class Part:
    """A configuration that builds what it was given."""

    def __init__(self, build):
        self.build = build

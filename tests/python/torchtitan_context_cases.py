"""torchtitan's trainer on Gloo ranks of a CPU, for which it asks for a GPU in a few places; run by test_torchtitan.py."""

import torch
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import distribute_tensor

SEQ_LEN, ROWS, STEPS = 256, 4, 4
LENGTHS = [[100, 1, 155], [256], [17, 239], [128, 128]]


class Monitor:
    """Of a device that has no memory to watch."""

    device_name, device_capacity = "cpu", 1

    def reset_peak_stats(self):
        pass

    def get_peak_stats(self):
        from torchtitan.components.metrics import DeviceMemStats
        return DeviceMemStats(0, 0, 0, 0, 0, 0)


def on_the_cpu():
    """torchtitan, imported for a CPU."""
    torch._utils._get_available_device_type = lambda: "cpu"
    import torchtitan.components.metrics
    import torchtitan.trainer
    torchtitan.components.metrics.build_device_memory_monitor = Monitor
    torchtitan.trainer.utils.get_peak_flops = lambda name: 1e12
    torchtitan.trainer.dist_utils.set_pg_timeouts = lambda **unused: None


class Rows:
    """ROWS rows a step, of several documents each; those of a dp rank, `batch` at a time."""

    def __init__(self, dp_world_size, dp_rank, local_batch_size, **unused):
        self.rank, self.count, self.batch = dp_rank, ROWS // dp_world_size, local_batch_size

    def __iter__(self):
        for step in range(STEPS):
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


def trainer_config(cp, batch):
    from lighthouse_attention import torchtitan as integration
    config = integration.use_lighthouse(integration.llama3_debugmodel_lighthouse(), topk=8, tile_topk=2, num_levels=2,
                                        full_attention_layers=(0,), lighthouse_steps=2)
    del config.model_spec.model.layers[2:]
    config.parallelism.context_parallel_degree, config.parallelism.spmd_backend = cp, "partial_dtensor"
    training = config.training
    training.seq_len, training.local_batch_size, training.global_batch_size, training.steps = SEQ_LEN, batch, ROWS, STEPS
    training.mixed_precision_param = "float32"
    config.checkpoint.enable = config.validator.enable = config.compile.enable = False
    config.debug.seed = 1
    return config


@torch.no_grad()
def same_weights(model):
    """Those that torchtitan draws depend on how they are sharded."""
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        whole = torch.ones(parameter.shape) if parameter.dim() == 1 else 0.05 * torch.randn(parameter.shape, generator=generator)
        parameter.copy_(distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None))


def train(cp, batch):
    """(loss, norm of the gradient) of each step, over all ranks."""
    on_the_cpu()
    config = trainer_config(cp, batch)
    config.tokenizer, config.dataloader = Part(lambda **unused: None), Part(Rows)
    trainer = config.build()
    for module in trainer.model_parts[0].modules():
        if isinstance(module, FSDPModule):
            module.set_force_sum_reduction_for_comms(True)  # Gloo has no other sum by 1.0
    same_weights(trainer.model_parts[0])
    steps = []
    trainer.metrics_processor.log = lambda step, loss, largest, norm, **more: steps.append((float(loss), float(norm)))
    trainer.train()
    return steps


class Part:
    """A configuration that builds what it was given."""

    def __init__(self, build):
        self.build = build

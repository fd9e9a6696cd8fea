#!/usr/bin/env python3
"""Training steps under torchtitan 0.3 of a few layers of Llama-3-8B's shapes: FSDP2 over all ranks, which share each row.

    torchrun --nproc_per_node=2 bench/torchtitan_steps.py                                        # 65,536 tokens, four layers
    torchrun --nproc_per_node=2 bench/torchtitan_steps.py --stages two --layers 2 --seq-len 131072

With the package, or PYTHONPATH=python and LIGHTHOUSE_LIBRARY=build/release/src/stable/liblighthouse_stable.so. Every layer selects
k = N / 64 in stage one, and is computed again in backward, as in the preset llama3_8b_lighthouse; weights are in fp32,
multiplied in bf16. Rows are drawn at random. One JSON line for each stage: seconds of a step (the median), tokens/s of all
ranks, the most memory in tensors of a rank, losses.

torchtitan 0.3 asks for torch 2.15; what is run here runs with torch 2.11 too (complete_packages)."""

import argparse
import gc
import importlib.util
import json
import os
import socket
import statistics
import sys
import time
import types

import torch
import torch.distributed as dist
import torch.distributed.fsdp

WARM_UP = 2  # steps, which allocate and choose plans


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq-len", type=int, default=65536)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--steps", type=int, default=6, help=f"timed steps of a stage, after {WARM_UP}")
    parser.add_argument("--stages", nargs="+", choices=["one", "two"], default=["one", "two"])
    parser.add_argument("--whole-loss", action="store_true", help="logits of all tokens at once: in chunks FSDP2 of torch 2.11 fails")
    parser.add_argument("--debug-model", action="store_true", help="torchtitan's small model in the place of the 8B's")
    return parser.parse_args()


# What torchtitan imports and nothing here uses: {package: {module: names}}.
UNUSED = {"datasets": {"datasets": ["Dataset", "load_dataset"], "datasets.distributed": ["split_dataset_by_node"]},
          "tensorboard": {"torch.utils.tensorboard": ["SummaryWriter"]}}


def complete_packages():
    """Empty classes, for packages that are missing and for a name of torchtitan's full_dtensor that torch 2.11 has not."""
    if not hasattr(torch.distributed.fsdp, "DataParallelMeshDims"):
        torch.distributed.fsdp.DataParallelMeshDims = type("DataParallelMeshDims", (), {})
    if not hasattr(dist, "set_timeout"):  # nor that: groups keep the timeout that they began with
        dist.set_timeout = lambda timeout, group: None
    for package, modules in UNUSED.items():
        if importlib.util.find_spec(package) is None:
            for module, names in modules.items():
                sys.modules[module] = types.ModuleType(module)
                vars(sys.modules[module]).update({name: type(name, (), {}) for name in names})


class Rows:
    """A row a step, the same on all ranks."""

    def __init__(self, seq_len, vocab_size):
        self.seq_len, self.vocab_size = seq_len, vocab_size

    def state_dict(self):
        return {}

    def load_state_dict(self, state):
        pass

    def __iter__(self):
        generator = torch.Generator().manual_seed(1)
        positions = torch.arange(self.seq_len)[None]
        while True:
            text = torch.randint(0, self.vocab_size, (1, self.seq_len + 1), generator=generator)
            yield dict(input=text[:, :-1], positions=positions), text[:, 1:]


class Part:
    """A configuration that builds what it was given."""

    def __init__(self, part):
        self.part = part

    def build(self, **unused):
        return self.part


def trainer_config(arguments, stage):
    from lighthouse_attention import torchtitan as integration
    from torchtitan.distributed.activation_checkpoint import FullAC
    if arguments.debug_model:
        config = integration.use_lighthouse(integration.llama3_debugmodel_lighthouse())
    else:
        config = integration.llama3_8b(arguments.seq_len)
    model, training, parallelism = config.model_spec.model, config.training, config.parallelism
    del model.layers[arguments.layers:]
    for attention in (layer.attention.inner_attention for layer in model.layers):
        attention.enabled, attention.topk = True, -(-arguments.seq_len // 64)
        attention.tile_topk = min(128, -(-attention.topk // world_size()))
    config.lighthouse_steps = None if stage == "one" else 0
    config.activation_checkpoint = FullAC.Config()
    parallelism.context_parallel_degree, parallelism.spmd_backend = world_size(), "partial_dtensor"
    training.seq_len, training.local_batch_size, training.global_batch_size = arguments.seq_len, 1, 1
    training.steps = WARM_UP + arguments.steps
    config.validator.enable = config.compile.enable = config.checkpoint.enable = False
    config.metrics.enable_tensorboard, config.metrics.log_freq, config.profiler.enable_profiling = False, 1, False
    if arguments.whole_loss:
        config.loss = config.loss.loss_fn
    config.tokenizer, config.dataloader = Part(None), Part(Rows(arguments.seq_len, model.vocab_size))
    config.debug.seed = 1
    return config


def world_size():
    return int(os.environ["WORLD_SIZE"])


def run(arguments, stage):
    trainer = trainer_config(arguments, stage).build()
    on_gpu = trainer.device.type == "cuda"
    ends, losses = [], []

    def log(step, loss, largest, norm, **more):
        if on_gpu:
            torch.cuda.synchronize()
        ends.append(time.perf_counter())
        losses.append(float(loss))

    trainer.metrics_processor.log = log
    if on_gpu:
        torch.cuda.reset_peak_memory_stats()
    trainer.train()
    seconds = statistics.median(after - before for before, after in zip(ends[WARM_UP - 1:], ends[WARM_UP:]))
    measured = torch.tensor([seconds, torch.cuda.max_memory_allocated() if on_gpu else 0], dtype=torch.float64, device=trainer.device)
    dist.all_reduce(measured, dist.ReduceOp.MAX)  # of the slowest rank, of the fullest
    seconds, peak = measured.tolist()
    trainer.close()
    return dict(stage=stage, ranks=world_size(), seq_len=arguments.seq_len, layers=arguments.layers, seconds=round(seconds, 4),
                tokens_per_s=round(arguments.seq_len / seconds), peak_gib=round(peak / 2**30, 2), losses=[round(loss, 4) for loss in losses])


def leave_group():
    """The group of the next stage meets at another port: in the store of this one a rank may find addresses that the other has left."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        port = [probe.getsockname()[1]]
    dist.broadcast_object_list(port, src=0)
    dist.destroy_process_group()
    os.environ.update(MASTER_PORT=str(port[0]), TORCHELASTIC_USE_AGENT_STORE="False")


def main():
    arguments = parse_arguments()
    complete_packages()
    for stage in arguments.stages:
        result = run(arguments, stage)
        gc.collect()  # the trainer, whose parts refer to one another: its memory is the next one's
        if os.environ["RANK"] == "0":
            print(json.dumps(result), flush=True)
        leave_group()


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Training steps of transformers Llamas whose rows all ranks share (docs/parallel.md), with FSDP2 around them.

    torchrun --nproc_per_node=2 bench/context_parallel.py                    # two GPUs, under three minutes
    torchrun --nproc_per_node=2 bench/context_parallel.py --tiny             # small sizes, on the CPU too
    torchrun --nproc_per_node=2 bench/context_parallel.py --cases 500m-lighthouse-alone 500m-lighthouse-heads
    torchrun --nproc_per_node=2 bench/context_parallel.py --sdpa flash       # not the kernel that PyTorch would take

With `pip install .`, or PYTHONPATH=python and LIGHTHOUSE_LIBRARY=build/release/src/stable/liblighthouse_stable.so.

A case is a model, an attention and a way to share a row. Models: `500m`, that of bench/huggingface_llama.py, with 131,072 tokens;
`8b`, four layers of Llama-3-8B's shape, with 65,536. Attentions: `lighthouse`, with k = N / 64, and `dense`. Ways: `alone`, every rank
trains the whole row by itself; `heads`, Lighthouse's groups (prepare(model, group=...)); `ring`, PyTorch's context_parallel with
SDPA, which has no kernel for the CPU.

Each case prints one JSON line: seconds of a step (of the slowest rank), tokens/s of all ranks together, the most memory in tensors of a
rank, losses, and the efficiency t1 / (W t), where t1 is the step alone of the same model and attention. Weights and rows are
the same in all cases of a model, and so are the losses of `alone`, `heads` and `ring`, but for rounding and the ties that it decides
(docs/python.md). Weights are in bf16 on GPUs, layers are checkpointed, and the loss is taken in chunks. A case that fails on every rank has
its error in its line."""

import argparse
import contextlib
import datetime
import gc
import json
import statistics
import time
from dataclasses import dataclass

import torch
import torch.distributed as dist
import torch.nn.functional as F
import transformers
from huggingface_llama import row_of_tokens, summed_loss
from lighthouse_attention import huggingface, switch_to_dense
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.experimental import context_parallel
from torch.nn.attention import SDPBackend, sdpa_kernel

MODELS = {  # tokens, and the sizes of a LlamaConfig
    "500m": (131072, dict(vocab_size=32000, hidden_size=1024, intermediate_size=3072, num_hidden_layers=28,
                          num_attention_heads=16, num_key_value_heads=8, head_dim=128)),
    "8b": (65536, dict(vocab_size=128256, hidden_size=4096, intermediate_size=14336, num_hidden_layers=4,
                       num_attention_heads=32, num_key_value_heads=8, head_dim=128, rope_theta=500000.0)),
}
TINY = dict(vocab_size=100, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
            num_key_value_heads=2, head_dim=16)
TINY_TOKENS = 512
KERNELS = dict(cudnn=SDPBackend.CUDNN_ATTENTION, flash=SDPBackend.FLASH_ATTENTION)


@dataclass
class Case:
    model: str
    attention: str
    way: str
    warm_up: int = 2
    steps: int = 4

    @property
    def name(self):
        return f"{self.model}-{self.attention}-{self.way}"


CASES = [  # dense steps of 131,072 tokens take ten seconds and more
    Case("500m", "lighthouse", "alone"), Case("500m", "lighthouse", "heads"), Case("8b", "lighthouse", "heads"),
    Case("8b", "dense", "heads", 1, 2), Case("500m", "dense", "alone", 1, 1), Case("500m", "dense", "heads", 1, 1),
    Case("500m", "dense", "ring", 1, 1)]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tiny", action="store_true", help=f"two small layers, {TINY_TOKENS} tokens")
    parser.add_argument("--cases", nargs="+", choices=[case.name for case in CASES], default=[case.name for case in CASES],
                        metavar="CASE", help="some of " + ", ".join(case.name for case in CASES))
    parser.add_argument("--sdpa", choices=KERNELS, help="the kernel of all attentions, where PyTorch would choose")
    return parser.parse_args()


# What transformers calls for the ring: SDPA, which context_parallel replaces, and never a mask.


def ring_attention(module, q, k, v, attention_mask, scaling=None, **unused):
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scaling, enable_gqa=True).transpose(1, 2), None


transformers.AttentionInterface.register("ring", ring_attention)
transformers.AttentionMaskInterface.register("ring", lambda *arguments, **named: None)


# Ways to share a row of tokens [1, N]: (a context for the step, arguments of the decoder, targets [1, N or this rank's]).


def shifted(tokens):
    return F.pad(tokens[:, 1:], (0, 1), value=-100)


def alone(model, tokens, mesh):
    return contextlib.nullcontext(), dict(input_ids=tokens), shifted(tokens)


def by_heads(model, tokens, mesh):
    part = huggingface.shard_batch(model, dict(input_ids=tokens, labels=tokens))
    targets = part.pop("shift_labels")
    del part["labels"], part["num_items_in_batch"]
    return contextlib.nullcontext(), part, targets


def by_ring(model, tokens, mesh):
    """The context makes parts of these tensors, in place."""
    targets, positions = shifted(tokens), torch.arange(tokens.shape[1], device=tokens.device)[None]
    buffers = [tokens, targets, positions]
    context = context_parallel(mesh, buffers=buffers, buffer_seq_dims=[1, 1, 1], no_restore_buffers=set(buffers))
    return context, dict(input_ids=tokens, position_ids=positions), targets


WAYS = dict(alone=alone, heads=by_heads, ring=by_ring)


class Loss(torch.nn.Module):
    """Of this rank's targets, over all targets of the row; the root of what FSDP2 shards."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, targets, num_targets, **inputs):
        hidden = self.model.model(**inputs, use_cache=False).last_hidden_state[0]
        return summed_loss(self.model.lm_head, hidden, targets[0]) / num_targets


def make_loss(case, sizes, num_tokens, mesh):
    torch.manual_seed(1)
    config = transformers.LlamaConfig(**sizes, max_position_embeddings=num_tokens, tie_word_embeddings=False, use_cache=False)
    attention = "lighthouse" if case.way == "heads" or case.attention == "lighthouse" else "ring" if case.way == "ring" else "sdpa"
    on_gpu = mesh.device_type == "cuda"
    with torch.device(mesh.device_type):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16 if on_gpu else torch.float32,
                                                              attn_implementation=attention)
    if attention == "lighthouse":
        topk = -(-num_tokens // 64)
        huggingface.prepare(model, topk=topk, tile_topk=min(128, -(-topk // mesh.size())), packed=False,
                            group=mesh if case.way == "heads" else None)
        if case.attention == "dense":
            switch_to_dense(model)
    model.gradient_checkpointing_enable({"use_reentrant": False})
    loss = Loss(model.train())
    if case.way != "alone":
        for module in (*model.model.layers, loss):
            fully_shard(module, mesh=mesh)
    return loss


class Device:
    """What differs between GPUs and a CPU."""

    def __init__(self, mesh):
        self.type, self.on_gpu = mesh.device_type, mesh.device_type == "cuda"
        self.name = torch.cuda.get_device_name() if self.on_gpu else "cpu"

    def seconds(self, since=0.0):
        """When all that was begun has ended."""
        if self.on_gpu:
            torch.cuda.synchronize()
        return time.perf_counter() - since

    def release(self):
        gc.collect()
        if self.on_gpu:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats()

    def largest(self, values):
        """Of each value, that of the rank where it is largest."""
        values = torch.tensor(values, dtype=torch.float64, device=self.type)
        dist.all_reduce(values, dist.ReduceOp.MAX)
        return values.tolist()

    def peak_bytes(self):
        return int(self.largest([torch.cuda.max_memory_allocated()])[0]) if self.on_gpu else None


def step(case, loss, optimizer, tokens, mesh):
    """Of one row; the loss over all ranks."""
    context, inputs, targets = WAYS[case.way](loss.model, tokens, mesh)
    num_targets = tokens.shape[1] - 1
    with context:
        value = loss(targets, num_targets, **inputs)
        (value if case.way == "alone" else value * mesh.size()).backward()  # FSDP averages what is to be summed
    optimizer.step()
    optimizer.zero_grad()
    value = value.detach()
    if case.way != "alone":
        dist.all_reduce(value)
    return value.item()


def run(case, sizes, num_tokens, mesh):
    device = Device(mesh)
    device.release()
    loss = make_loss(case, sizes, num_tokens, mesh)
    optimizer = torch.optim.AdamW(loss.parameters(), lr=3e-4, fused=True)
    seconds, losses = [], []
    for number in range(case.warm_up + case.steps):
        tokens = row_of_tokens(sizes["vocab_size"], num_tokens, number).to(mesh.device_type)
        device.largest([0])  # so that no rank begins before the others
        start = device.seconds()
        losses.append(step(case, loss, optimizer, tokens, mesh))
        seconds.append(device.seconds(start))
    seconds = device.largest(seconds)[case.warm_up:]
    return dict(device=device.name, ranks=mesh.size(), torch=torch.__version__, transformers=transformers.__version__,
                seq_len=num_tokens, layers=sizes["num_hidden_layers"], parameters=sum(x.numel() for x in loss.parameters()),
                seconds=seconds, tokens_per_s=num_tokens / statistics.median(seconds) * (mesh.size() if case.way == "alone" else 1),
                peak_bytes=device.peak_bytes(), losses=losses)


def result_of(case, options, mesh):
    if case.way == "ring" and mesh.device_type == "cpu":
        return dict(case=case.name, skipped="PyTorch's ring has no kernel for the CPU")
    num_tokens, sizes = (TINY_TOKENS, TINY) if options.tiny else MODELS[case.model]
    try:
        with sdpa_kernel(KERNELS[options.sdpa]) if options.sdpa else contextlib.nullcontext():
            return dict(case=case.name, sdpa=options.sdpa) | run(case, sizes, num_tokens, mesh)
    except Exception as error:
        return dict(case=case.name, sdpa=options.sdpa, error=f"{type(error).__name__}: {error}")


def main():
    options = parse_arguments()
    on_gpu = torch.cuda.is_available()
    if on_gpu:
        torch.cuda.set_device(dist.get_node_local_rank())
    dist.init_process_group(timeout=datetime.timedelta(minutes=3))
    mesh = dist.init_device_mesh("cuda" if on_gpu else "cpu", (dist.get_world_size(),))
    alone = {}
    for case in (case for case in CASES if case.name in options.cases):
        result, key = result_of(case, options, mesh), (case.model, case.attention)
        if case.way == "alone":
            alone[key] = result.get("seconds")
        elif "seconds" in result and alone.get(key):
            result["efficiency"] = statistics.median(alone[key]) / (mesh.size() * statistics.median(result["seconds"]))
        if dist.get_rank() == 0:
            print(json.dumps(result), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()

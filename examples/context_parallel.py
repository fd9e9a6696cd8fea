"""A Llama of transformers with FSDP2, whose rows are shared by `--cp` ranks each.

    torchrun --nproc_per_node=2 examples/context_parallel.py --cp 2

On GPUs, or on the CPU where there are none. The text counts, each document with a step of its own; the model is tiny.
"""

import argparse

import torch
import torch.distributed as dist
import transformers
from lighthouse_attention import huggingface, switch_to_dense
from torch.distributed.fsdp import fully_shard

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--cp", type=int, default=2, help="ranks that share a row")
parser.add_argument("--steps", type=int, default=60)
parser.add_argument("--stage-one", type=int, default=40, help="steps with Lighthouse attention; dense attention follows")
arguments = parser.parse_args()

dist.init_process_group()
device = "cuda" if torch.cuda.is_available() else "cpu"
if device == "cuda":
    torch.cuda.set_device(dist.get_node_local_rank())
mesh = dist.init_device_mesh(device, (dist.get_world_size() // arguments.cp, arguments.cp), mesh_dim_names=("dp", "cp"))
everyone = mesh._flatten("everyone")

torch.manual_seed(1)  # the same weights on every rank
config = transformers.LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=160, num_hidden_layers=2, num_attention_heads=4)
model = transformers.AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse").to(device)
huggingface.prepare(model, topk=16, tile_topk=4, num_levels=2, full_attention_layers=[0], group=mesh["cp"])
for module in (*model.model.layers, model):
    fully_shard(module, mesh=everyone)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)


def packed_row(step, dp_rank):
    """Two documents of 100 and 156 tokens; another row for each dp rank, the same for those that share it."""
    generator = torch.Generator().manual_seed(step * mesh["dp"].size() + dp_rank)
    lengths, strides = (100, 156), torch.randint(1, 9, (2,), generator=generator).tolist()
    tokens = torch.cat([stride * torch.arange(length) % 64 for stride, length in zip(strides, lengths)])[None].to(device)
    positions = torch.cat([torch.arange(length) for length in lengths])[None].to(device)
    return dict(input_ids=tokens, labels=tokens.masked_fill(positions == 0, -100), position_ids=positions)


for step in range(arguments.steps):
    if step == arguments.stage_one:
        switch_to_dense(model)
    batch = packed_row(step, mesh["dp"].get_local_rank())
    targets = (batch["labels"][:, 1:] != -100).sum()
    dist.all_reduce(targets, group=mesh["dp"].get_group())  # of all rows of the step
    loss = model(**huggingface.shard_batch(model, batch | dict(num_items_in_batch=targets)), use_cache=False).loss
    optimizer.zero_grad()
    (loss * dist.get_world_size()).backward()  # FSDP averages what is to be summed: losses are over the targets of all ranks
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    loss = loss.detach()
    dist.all_reduce(loss)
    if dist.get_rank() == 0:
        print(f"step {step + 1}: loss {loss.item():.3f}")
dist.destroy_process_group()

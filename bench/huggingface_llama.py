#!/usr/bin/env python3
"""Trains a transformers Llama on long rows with attn_implementation "lighthouse" and "sdpa", taking turns in one process.

    python bench/huggingface_llama.py [--seq-len 65536] [--steps 4] [--json FILE]

By default the shape of Qwen3-0.6B without QK-norm and with a vocabulary of 32,000: 28 layers of 1,024 channels, 16 heads and
8 KV heads of 128, FFN 3,072; 506 million random weights, bf16, batch 1, AdamW. Layers are checkpointed and the loss is taken
in chunks, so that neither activations nor fp32 logits of a whole row are kept. L = 3, p = 4, k = N / 64 (docs/tuning.md).

First come the FLOPs of a step, then medians of the steps. Each step has a row of its own, drawn from a Zipf distribution:
what both can learn is its entropy. All weights are one model's, so a loss follows the steps of both."""

import argparse
import json
import statistics
import time

import torch
import torch.nn.functional as F
import transformers
from lighthouse_attention import gathered_length, huggingface
from torch.utils.checkpoint import checkpoint

IMPLEMENTATIONS = ("lighthouse", "sdpa")
CHUNK = 8192  # tokens whose logits exist at once


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seq-len", type=int, default=65536)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--hidden", type=int, default=1024, help="channels; the FFN has three times as many")
    parser.add_argument("--heads", type=int, default=16, help="query heads; half as many KV heads")
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--full-attention-layers", type=int, nargs="*", default=[], help="dense layers, from 0")
    parser.add_argument("--steps", type=int, default=4, help="timed steps of each implementation")
    parser.add_argument("--warm-up", type=int, default=2, help="steps of each before those")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--keep-activations", action="store_true", help="no gradient checkpointing")
    parser.add_argument("--json", metavar="FILE", help="append the results as one line; - is standard output")
    return parser.parse_args()


def make_model(options):
    torch.manual_seed(1)
    config = transformers.LlamaConfig(
        vocab_size=options.vocabulary, hidden_size=options.hidden, intermediate_size=3 * options.hidden,
        num_hidden_layers=options.layers, num_attention_heads=options.heads, num_key_value_heads=options.heads // 2,
        head_dim=options.head_dim, max_position_embeddings=options.seq_len, tie_word_embeddings=False, use_cache=False)
    with torch.device(options.device):
        model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16, attn_implementation="lighthouse")
    huggingface.prepare(model, topk=-(-options.seq_len // 64), full_attention_layers=options.full_attention_layers, packed=False)
    if not options.keep_activations:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return model.train()


def flops_of_step(model, options, rows, dense_layers):
    """FLOPs of one step by part. `rows` are attended to in all layers but `dense_layers`."""
    tokens, passes = options.seq_len, 3 if options.keep_activations else 4  # forward, backward twice, forward again
    matrices = sum(parameter.numel() for parameter in model.model.layers.parameters() if parameter.dim() == 2)
    head = model.lm_head.weight.numel() * 4  # its chunks are always computed again
    attention_passes = 3.5 if options.keep_activations else 4.5  # a backward is two and a half forwards

    def attention(length):  # causal: two products of half a square
        return attention_passes * 2 * length**2 * options.heads * options.head_dim

    lighthouse = (options.layers - dense_layers) * attention(rows) + dense_layers * attention(tokens)
    return {"matrix_products": 2 * tokens * (passes * matrices + head),
            "lighthouse_attention": lighthouse, "sdpa_attention": options.layers * attention(tokens)}


def row_of_tokens(vocabulary, num_tokens, step):
    generator = torch.Generator().manual_seed(step)
    odds = 1.0 / torch.arange(1, vocabulary + 1)
    return torch.multinomial(odds, num_tokens, replacement=True, generator=generator)[None]


def summed_loss(lm_head, hidden, targets):
    """The cross entropy of hidden [N, channels], its logits in fp32 but never all at once."""
    def of_part(part, targets):
        return F.cross_entropy(lm_head(part).float(), targets, reduction="sum")

    return sum(checkpoint(of_part, *part, use_reentrant=False) for part in zip(hidden.split(CHUNK), targets.split(CHUNK)))


def loss_of(model, tokens):
    """The mean cross entropy of every token but the first."""
    hidden = model.model(input_ids=tokens[:, :-1], use_cache=False).last_hidden_state[0]
    return summed_loss(model.lm_head, hidden, tokens[0, 1:]) / hidden.shape[0]


class Steps:
    """Steps of one implementation: seconds, losses and the most memory in tensors."""

    def __init__(self, implementation, model, optimizer, options):
        self.implementation, self.model, self.optimizer, self.options = implementation, model, optimizer, options
        self.seconds, self.losses, self.peak_bytes = [], [], 0
        self.on_cuda = torch.device(options.device).type == "cuda"

    def run(self, step):
        self.model.set_attn_implementation(self.implementation)
        options = self.options
        tokens = row_of_tokens(options.vocabulary, options.seq_len + 1, step).to(options.device)
        if self.on_cuda:
            torch.cuda.synchronize()
            torch.cuda.reset_peak_memory_stats()
        start = time.perf_counter()
        loss = loss_of(self.model, tokens)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.losses.append(loss.item())  # waits for the device
        if self.on_cuda:
            torch.cuda.synchronize()
            self.peak_bytes = max(self.peak_bytes, torch.cuda.max_memory_allocated())
        self.seconds.append(time.perf_counter() - start)

    def results(self):
        timed = self.seconds[self.options.warm_up:]
        return {"tokens_per_s": self.options.seq_len / statistics.median(timed), "seconds": timed, "losses": self.losses,
                "peak_bytes": self.peak_bytes if self.on_cuda else None}


def main():
    options = parse_arguments()
    model = make_model(options)
    topk = model.config.lighthouse["topk"]
    rows = gathered_length(options.seq_len, num_levels=3, pooling_factor=4, topk=topk)
    flops = flops_of_step(model, options, rows, len(set(options.full_attention_layers)))
    num_parameters = sum(parameter.numel() for parameter in model.parameters())
    device = torch.cuda.get_device_name() if torch.device(options.device).type == "cuda" else options.device
    results = {"device": device, "torch": torch.__version__, "transformers": transformers.__version__,
               "parameters": num_parameters, "seq_len": options.seq_len, "topk": topk, "rows": rows,
               "checkpointed": not options.keep_activations, "flops": flops}
    print(f"{device}, torch {torch.__version__}, transformers {transformers.__version__}: {num_parameters / 1e6:.1f} million "
          f"parameters, N = {options.seq_len:,}, k = {topk:,}, S = {rows:,}")
    totals = {name: flops["matrix_products"] + flops[f"{name}_attention"] for name in IMPLEMENTATIONS}
    for name in IMPLEMENTATIONS:
        print(f"{name}: {totals[name] / 1e12:,.2f} TFLOP a step, {flops[f'{name}_attention'] / 1e12:,.2f} of them attention")
    print(f"FLOPs, sdpa / lighthouse: {totals['sdpa'] / totals['lighthouse']:.2f}")

    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, fused=True)
    runs = {name: Steps(name, model, optimizer, options) for name in IMPLEMENTATIONS}
    for step in range(options.warm_up + options.steps):
        for run in runs.values():
            run.run(step)
    for name, run in runs.items():
        results[name] = run.results()
        peak = results[name]["peak_bytes"]
        memory = f"{peak / 2**30:.1f} GiB" if peak is not None else "peak memory not known"
        print(f"{name}: {results[name]['tokens_per_s']:,.0f} tokens/s, {memory}, losses " +
              " ".join(f"{loss:.4f}" for loss in run.losses))
    results["ratio"] = results["lighthouse"]["tokens_per_s"] / results["sdpa"]["tokens_per_s"]
    print(f"lighthouse / sdpa: {results['ratio']:.2f}")
    if options.json == "-":
        print(json.dumps(results))
    elif options.json:
        with open(options.json, "a") as file:
            file.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()

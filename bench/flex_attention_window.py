#!/usr/bin/env python3
"""Times a causal sliding window with FlexAttention on CUDA and prints one JSON line for scripts/benchmark_report.py:
medians and quartiles in ms, forward without autograd and forward+backward. 1,744 tokens see as many keys at N = 98,304
as L = 3, p = 4, k = 1,536 has query-key pairs."""

import argparse
import json

import torch
from event_times import time_ms
from torch.nn.attention.flex_attention import create_block_mask, flex_attention


def sliding_window(seq_len, window):
    def sees(_batch, _head, query, key):
        return (query >= key) & (query - key < window)

    return create_block_mask(sees, B=None, H=None, Q_LEN=seq_len, KV_LEN=seq_len, device="cuda", _compile=True)


def measure(arguments):
    torch.manual_seed(1)
    shape = (1, arguments.num_heads, arguments.seq_len, arguments.head_dim)
    q, k, v, dout = (torch.randn(shape, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    mask = sliding_window(arguments.seq_len, arguments.window)
    attention = torch.compile(flex_attention, dynamic=False)

    @torch.no_grad()
    def forward():
        attention(q, k, v, block_mask=mask)

    leaves = [x.detach().requires_grad_() for x in (q, k, v)]

    def both():
        torch.autograd.grad(attention(*leaves, block_mask=mask), leaves, dout)

    return time_ms(forward, arguments.repeats), time_ms(both, arguments.repeats)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seq-len", type=int, default=98304)
    parser.add_argument("--window", type=int, default=1744)
    parser.add_argument("--num-heads", type=int, default=8)
    parser.add_argument("--head-dim", type=int, default=128)
    parser.add_argument("--repeats", type=int, default=30)
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("flex_attention_window: no CUDA device is visible; run nvidia-smi")
    forward, both = measure(arguments)
    line = {"bench": "flex_attention_window", "gpu": torch.cuda.get_device_name(), "torch": torch.__version__,
            "dtype": "bfloat16", **vars(arguments)}
    for name, (q1, median, q3) in (("forward", forward), ("both", both)):
        line |= {f"{name}_ms": median, f"{name}_q1_ms": q1, f"{name}_q3_ms": q3}
    print(json.dumps(line))


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Times rows of packed documents on CUDA, forward and backward, with Lighthouse Attention and with dense attention on each
document (FlashAttention-2 by offsets): medians of single calls from an idle device, so Python's own time counts; of calls in
a row, where the device need not wait for it; and the memory that a call takes beyond its arguments and results."""

import argparse

import torch
from event_times import queued_ms, time_ms

from lighthouse_attention import lighthouse_attention
from lighthouse_attention.inner import stock_attention

ROWS = {  # offsets of documents in 98,304 tokens
    "192 x 512": range(0, 98305, 512),
    "65,536 and 64 x 512": [0, *range(65536, 98305, 512)],
    "32 x 3,072": range(0, 98305, 3072),
}


def measure(function, repeats):
    """(ms of single calls, ms in a row, MiB)"""
    _, median, _ = time_ms(function, repeats)
    queued = queued_ms(function, repeats)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    function()
    return median, queued, (torch.cuda.max_memory_allocated() - before) / 2**20


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=20)
    arguments = parser.parse_args()
    torch.manual_seed(1)
    q, k, v, dout = (torch.randn(1, 98304, 8, 128, device="cuda", dtype=torch.bfloat16) for _ in range(4))
    leaves = [x.requires_grad_() for x in (q, k, v)]
    print(torch.cuda.get_device_name())
    for name, offsets in ROWS.items():
        offsets = list(offsets)
        lengths = [end - begin for begin, end in zip(offsets, offsets[1:])]

        def lighthouse():
            out = lighthouse_attention(q, k, v, num_levels=3, pooling_factor=4, topk=1536, cu_seqlens=offsets)
            torch.autograd.grad(out, leaves, dout)

        def dense():
            out = stock_attention(*(x.transpose(1, 2) for x in leaves), lengths).transpose(1, 2)
            torch.autograd.grad(out, leaves, dout)

        for what, function in (("lighthouse", lighthouse), ("dense", dense)):
            one, queued, memory = measure(function, arguments.repeats)
            print(f"{name:20} {what:10} {one:8.3f} ms {queued:8.3f} ms in a row {memory:8.0f} MiB", flush=True)


if __name__ == "__main__":
    main()

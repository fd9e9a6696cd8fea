"""What Python costs: forward, and forward+backward, through the C++ operator library and through the Python package, in turns.

    python bench/python_overhead.py [--device cuda] [--build build/release]

The two register the same operators, so each runs in a process of its own; each prints the medians of its runs in
microseconds, and this prints the differences. The targets: at most 60 a call, and 3 % at 98,304 tokens."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

LENGTHS = {"cuda": (2048, 8192, 98304), "cpu": (256, 2048)}


def attention_of(library):
    if library:
        torch.ops.load_library(library)
        return torch.ops.lighthouse.attention
    from lighthouse_attention import lighthouse_attention
    return lighthouse_attention


def median_of(call, device, runs):
    times = []
    for _ in range(runs + runs // 4):
        if device == "cuda":
            torch.cuda.synchronize()
        start = time.perf_counter()
        call()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append((time.perf_counter() - start) * 1e6)
    return statistics.median(times[runs // 4:])


def measure(library, device):
    attention = attention_of(library)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    results = {}
    for seq_len in LENGTHS[device]:
        q, k, v = (torch.randn(1, seq_len, 8, 128, device=device, dtype=dtype, requires_grad=True) for _ in range(3))
        gradient = torch.randn_like(q)

        def forward():
            with torch.no_grad():
                attention(q, k, v, topk=seq_len // 64)

        def both():
            torch.autograd.grad(attention(q, k, v, topk=seq_len // 64), (q, k, v), gradient)

        results[seq_len] = [median_of(call, device, 100 if seq_len < 50_000 else 40) for call in (forward, both)]
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=LENGTHS, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--build", type=Path, default=Path("build/release"))
    parser.add_argument("--measure", choices=["cpp", "python"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    cpp = options.build / "src" / "ops" / "liblighthouse_ops.so"
    if options.measure:
        print(json.dumps(measure(cpp if options.measure == "cpp" else None, options.device)))
        return
    command = [sys.executable, __file__, "--device", options.device, "--build", options.build, "--measure"]
    turns = {"cpp": [], "python": []}
    for _ in range(3):
        for name, results in turns.items():
            results.append(json.loads(subprocess.run([*command, name], check=True, stdout=subprocess.PIPE).stdout))
    for seq_len in map(str, LENGTHS[options.device]):
        for index, what in enumerate(("forward", "forward+backward")):
            ours, theirs = (statistics.median(run[seq_len][index] for run in turns[name]) for name in ("python", "cpp"))
            print(f"{options.device} N={seq_len} {what}: C++ {theirs:.0f} us, Python {ours:.0f} us, {ours - theirs:+.0f} us, "
                  f"{100 * (ours / theirs - 1):+.1f} %")


if __name__ == "__main__":
    main()

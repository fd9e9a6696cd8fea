"""What Python costs: forward, and forward+backward, through the C++ operator library and through the Python package, in turns.

    python bench/python_overhead.py [--device cuda] [--build build/release]

The two register the same operators, so each runs in a process of its own; each prints the medians of its runs in
microseconds, and this prints the differences. The targets: at most 60 a call, and 3 % at 98,304 tokens.

Two lines say where the difference comes from. "on one thread" is forward+backward without torch's thread for each device
(torch.autograd.set_multithreading_enabled(False)): Python then need not change threads. "floor" is what two autograd
functions in Python cost that do nothing, around the C++ operator: what no package without compiled autograd can beat."""

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch

HEADS = {"cuda": (8, 128), "cpu": (1, 16)}  # heads, head_dim
LENGTHS = {"cuda": (2048, 8192, 98304), "cpu": (64, 256)}


def attention_of(library):
    if library:
        torch.ops.load_library(library)
        return torch.ops.lighthouse.attention
    from lighthouse_attention import lighthouse_attention
    return lighthouse_attention


class Nothing(torch.autograd.Function):
    """As many tensors as it is given, unchanged."""

    @staticmethod
    def forward(ctx, *tensors):
        return tensors if len(tensors) > 1 else tensors[0]

    @staticmethod
    def backward(ctx, *gradients):
        return gradients if len(gradients) > 1 else gradients[0]


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
    if device == "cpu":
        torch.set_num_threads(1)  # so that no thread waits for another
    attention = attention_of(library)
    dtype = torch.bfloat16 if device == "cuda" else torch.float32
    results = {}
    for seq_len in LENGTHS[device]:
        q, k, v = (torch.randn(1, seq_len, *HEADS[device], device=device, dtype=dtype, requires_grad=True) for _ in range(3))
        gradient = torch.randn_like(q)

        def forward():
            with torch.no_grad():
                attention(q, k, v, topk=seq_len // 64)

        def both():
            torch.autograd.grad(attention(q, k, v, topk=seq_len // 64), (q, k, v), gradient)

        def both_on_one_thread():
            with torch.autograd.set_multithreading_enabled(False):
                both()

        def floor():
            out = Nothing.apply(attention(*Nothing.apply(q, k, v), topk=seq_len // 64))
            torch.autograd.grad(out, (q, k, v), gradient)

        calls = {"forward": forward, "forward+backward": both, "forward+backward on one thread": both_on_one_thread}
        if library:
            calls["floor"] = floor
        runs = 100 if seq_len < 50_000 else 40
        results[seq_len] = {name: median_of(call, device, runs) for name, call in calls.items()}
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
        cpp, python = ({what: statistics.median(run[seq_len][what] for run in turns[name]) for what in turns[name][0][seq_len]}
                       for name in ("cpp", "python"))
        for what, ours in python.items():
            print(f"{options.device} N={seq_len} {what}: C++ {cpp[what]:.0f} us, Python {ours:.0f} us, "
                  f"{ours - cpp[what]:+.0f} us, {100 * (ours / cpp[what] - 1):+.1f} %")
        print(f"{options.device} N={seq_len} floor: {cpp['floor'] - cpp['forward+backward']:+.0f} us")


if __name__ == "__main__":
    main()

"""What Python costs: forward, and forward+backward, through the C++ functions and through the Python package, in turns.

    python bench/python_overhead.py [--device cuda] [--build build/release]

The C++ functions are called as operators of the tests (tests/cpp/ops/python_operators.cpp). Medians of three turns in
microseconds, and their differences. The targets: at most 60 a call, and 3 % at 98,304 tokens.

Two lines say where the difference comes from. "on one thread" is forward+backward without torch's thread for each device
(torch.autograd.set_multithreading_enabled(False)): Python then need not change threads. "floor" is what two autograd
functions in Python cost that do nothing, around the C++ function: what no package without compiled autograd can beat.
On CUDA "graphed" is forward+backward as torch.cuda.make_graphed_callables replays it, copies of the inputs included."""

import argparse
import functools
import statistics
import time
from pathlib import Path

import torch

HEADS = {"cuda": (8, 128), "cpu": (1, 16)}  # heads, head_dim
LENGTHS = {"cuda": (2048, 8192, 98304), "cpu": (64, 256)}


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


def measure(attention, device, with_floor):
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
        if device == "cuda":
            graphed = torch.cuda.make_graphed_callables(functools.partial(attention, topk=seq_len // 64), (q, k, v))
            calls["graphed"] = lambda: torch.autograd.grad(graphed(q, k, v), (q, k, v), gradient)
        if with_floor:
            calls["floor"] = floor
        runs = 100 if seq_len < 50_000 else 40
        results[seq_len] = {name: median_of(call, device, runs) for name, call in calls.items()}
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=LENGTHS, default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--build", type=Path, default=Path("build/release"))
    options = parser.parse_args()
    from lighthouse_attention import lighthouse_attention
    torch.ops.load_library(options.build / "tests" / "cpp" / "ops" / "liblighthouse_python_operators.so")
    if options.device == "cpu":
        torch.set_num_threads(1)  # so that no thread waits for another
    functions = {"cpp": torch.ops.lighthouse_cpp.attention, "python": lighthouse_attention}
    turns = {"cpp": [], "python": []}
    for _ in range(3):
        for name, results in turns.items():
            results.append(measure(functions[name], options.device, with_floor=name == "cpp"))
    for seq_len in LENGTHS[options.device]:
        cpp, python = ({what: statistics.median(run[seq_len][what] for run in turns[name]) for what in turns[name][0][seq_len]}
                       for name in ("cpp", "python"))
        for what, ours in python.items():
            print(f"{options.device} N={seq_len} {what}: C++ {cpp[what]:.0f} us, Python {ours:.0f} us, "
                  f"{ours - cpp[what]:+.0f} us, {100 * (ours / cpp[what] - 1):+.1f} %")
        print(f"{options.device} N={seq_len} floor: {cpp['floor'] - cpp['forward+backward']:+.0f} us")


if __name__ == "__main__":
    main()

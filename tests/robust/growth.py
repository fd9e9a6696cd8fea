#!/usr/bin/env python3
"""Measures how much the memory of a run grows from step to step.

    python tests/robust/growth.py --steps 10000 --lighthouse build/release/bin/lighthouse
    python tests/robust/growth.py --steps 3000 --device cuda

The resident memory of the process is read every 100 steps; what is reported is the median of the second half of the run
over that of the quarter before it, in KiB for 1,000 steps. It must be below 1 MiB. On a GPU the most memory in tensors must not
grow from the middle of the last stage on.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tiny_run import command, write_corpus

KEYS = {"validation.interval": 500, "checkpoint.interval": 500, "logging.sample_tokens": 0, "training.seq_len": 32, "model.num_layers": 1}
KEYS_ON_CUDA = {"training.device": "cuda", "model.head_dim": 64, "training.seq_len": 512}  # what stock kernels take
MOST_KIB = 1024


def resident_kib(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmRSS")))


def steps_done(metrics):
    """By the last whole line of metrics.jsonl."""
    try:
        with open(metrics, "rb") as file:
            file.seek(max(0, os.path.getsize(metrics) - 8192))
            lines = file.read().split(b"\n")[:-1]
        return json.loads(lines[-1])["step"] if lines else 0
    except FileNotFoundError:
        return 0


def samples_of(process, metrics, every):
    """Steps and the resident memory then."""
    samples = []
    while process.poll() is None:
        step = steps_done(metrics)
        if step >= (samples[-1][0] + every if samples else every):
            try:
                samples.append((step, resident_kib(process.pid)))
            except (FileNotFoundError, StopIteration):  # it has ended
                break
        time.sleep(0.01)
    return samples


def growth(samples):
    """KiB for 1,000 steps, of medians: of the third quarter and the fourth."""
    half = samples[len(samples) // 2:]
    parts = half[:len(half) // 2], half[len(half) // 2:]
    (step_a, kib_a), (step_b, kib_b) = ([statistics.median(values) for values in zip(*part, strict=True)] for part in parts)
    return (kib_b - kib_a) / (step_b - step_a) * 1000


def growth_on_device(metrics):
    """Bytes in tensors at most, at the end less in the middle of the last stage."""
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    peaks = [line["peak_memory"] for line in lines if line["stage"] == lines[-1]["stage"] and line.get("peak_memory")]
    return peaks[-1] - peaks[len(peaks) // 2]


def experiment(lighthouse, steps, device="cpu", report=print):
    with tempfile.TemporaryDirectory(prefix="lighthouse-growth-") as folder:
        corpus, run = write_corpus(Path(folder) / "t.txt"), Path(folder) / "run"
        keys = KEYS | (KEYS_ON_CUDA if device == "cuda" else {}) | {"training.steps": steps, "training.lighthouse_steps": steps * 2 // 3}
        process = subprocess.Popen(command(lighthouse, corpus, run, keys), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            samples = samples_of(process, run / "metrics.jsonl", every=max(1, steps // 100))
            _, errors = process.communicate()
        finally:
            process.kill()
        assert process.returncode == 0, errors[-1000:]
        on_device = growth_on_device(run / "metrics.jsonl") if device == "cuda" else 0
    found = growth(samples)
    report(f"{steps} steps: {found:.0f} KiB for 1,000 steps; {samples[0][1]} KiB at step {samples[0][0]}, "
           f"{samples[-1][1]} KiB at step {samples[-1][0]}" + (f"; on the device {on_device} bytes" if device == "cuda" else ""))
    assert on_device == 0, f"tensors on the device take {on_device} bytes more at the end than in the middle of the last stage"
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--lighthouse", type=Path, default=Path("build/release/bin/lighthouse"))
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    arguments = parser.parse_args()
    found = experiment(arguments.lighthouse.resolve(), arguments.steps, arguments.device)
    if found >= MOST_KIB:
        sys.exit(f"growth: {found:.0f} KiB for 1,000 steps, more than {MOST_KIB}")


if __name__ == "__main__":
    main()

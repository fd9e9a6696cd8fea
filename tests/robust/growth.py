#!/usr/bin/env python3
"""Measures how much the memory of a run on the CPU grows from step to step.

    python tests/robust/growth.py --steps 10000 --lighthouse build/release/bin/lighthouse

The resident memory of the process is read every 100 steps; what is reported is the median of the second half of the run
over that of the quarter before it, in KiB for 1,000 steps. It must be below 1 MiB.
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


def experiment(lighthouse, steps, report=print):
    with tempfile.TemporaryDirectory(prefix="lighthouse-growth-") as folder:
        corpus, run = write_corpus(Path(folder) / "t.txt"), Path(folder) / "run"
        keys = KEYS | {"training.steps": steps, "training.lighthouse_steps": steps * 2 // 3}
        process = subprocess.Popen(command(lighthouse, corpus, run, keys), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        try:
            samples = samples_of(process, run / "metrics.jsonl", every=max(1, steps // 100))
            _, errors = process.communicate()
        finally:
            process.kill()
        assert process.returncode == 0, errors[-1000:]
    found = growth(samples)
    report(f"{steps} steps: {found:.0f} KiB for 1,000 steps; {samples[0][1]} KiB at step {samples[0][0]}, "
           f"{samples[-1][1]} KiB at step {samples[-1][0]}")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=10000)
    parser.add_argument("--lighthouse", type=Path, default=Path("build/release/bin/lighthouse"))
    arguments = parser.parse_args()
    found = experiment(arguments.lighthouse.resolve(), arguments.steps)
    if found >= MOST_KIB:
        sys.exit(f"growth: {found:.0f} KiB for 1,000 steps, more than {MOST_KIB}")


if __name__ == "__main__":
    main()

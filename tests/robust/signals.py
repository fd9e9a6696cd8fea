#!/usr/bin/env python3
"""Sends the signals that ask for an end to runs at random moments: while they start, train, validate, save and sample.

    python tests/robust/signals.py --count 100 --lighthouse build/release/bin/lighthouse

Each run must end within 30 seconds, with exit 0, words that name the signal (or a run that was done), and nothing lost:
its newest checkpoint is of the last step that it says. Before the program is mapped, the first hundredth of a second, the
time of a start for, the system's default holds; such runs are counted apart.
"""

import json
import random
import re
import signal
import subprocess
import tempfile
import time
from collections import Counter
from pathlib import Path

from tiny_run import command, main, write_corpus

SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGUSR1", "SIGUSR2", "SIGXCPU")


def outcome(process, errors, name, run):
    """What became of a run; raises AssertionError with its words when that is not allowed."""
    if process.returncode == -getattr(signal, name) and not errors and not run.exists():
        return "before the program was mapped"
    assert process.returncode == 0, f"{name}: exit {process.returncode}: {errors[-500:]}"
    steps = [json.loads(path.read_text())["step"] for path in run.glob("checkpoints/step-*/manifest.json")]
    if f"stopped by {name} before the first step" in errors:
        assert not steps, "a checkpoint of a run that has none"
        return "before the first step"
    if found := re.search(rf"stopped by {name} after step (\d+), which is saved", errors):
        assert max(steps) == int(found[1]), f"step {found[1]} is said to be saved, the newest is {max(steps)}"
        return "in a step"
    assert "done: 150 steps" in errors and max(steps) == 150, errors[-500:]
    return "in the sample" if f"the sample was stopped by {name}" in errors else "after all was done"


def send(lighthouse, corpus, run, name, wait):
    """`wait` seconds after the start."""
    process = subprocess.Popen(command(lighthouse, corpus, run), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    try:
        time.sleep(wait)
        process.send_signal(getattr(signal, name))
        _, errors = process.communicate(timeout=30)
    finally:
        process.kill()
    return outcome(process, errors, name, run)


def experiment(lighthouse, count, seed=1, report=print):
    source, outcomes = random.Random(seed), Counter()
    with tempfile.TemporaryDirectory(prefix="lighthouse-signals-") as folder:
        corpus = write_corpus(Path(folder) / "t.txt")
        begin = time.monotonic()
        subprocess.run(command(lighthouse, corpus, Path(folder) / "whole"), check=True, capture_output=True)
        whole = time.monotonic() - begin
        for number in range(count):
            name = SIGNALS[number % len(SIGNALS)]
            kind = send(lighthouse, corpus, Path(folder) / str(number), name, source.uniform(0, whole))
            outcomes[kind] += 1
    for kind, number in outcomes.most_common():
        report(f"{number:5} {kind}")
    return outcomes


if __name__ == "__main__":
    main(experiment, __doc__, 100, lighthouse="build/release/bin/lighthouse")

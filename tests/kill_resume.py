#!/usr/bin/env python3
"""Kills a training run with SIGKILL at random moments and resumes it, again and again.

    python tests/kill_resume.py --kills 100 --lighthouse build/release/bin/lighthouse
    python tests/kill_resume.py --kills 500 --ranks 4    # several processes, mostly killed while they save

Of several processes all are killed at once, or one of them, which ends the others.

After every kill: every line of metrics.jsonl but a torn last one reads, the newest whole checkpoint is at most two
checkpoint intervals behind the last step that was logged (one is being written while the steps of the next interval are
made), and the next start goes on from exactly there. At the end weights, optimizer state, trainer state and metrics are,
bit for bit, those of a run that was never broken.
"""

import argparse
import json
import os
import random
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

INTERVAL = 3  # steps between checkpoints
STEPS_A_LIFE = 8  # at most; about 3 on average are not lost, so that all kills come before the end of the run
STARTED = "run folder"  # what a start says when it has cut the metrics
WORDS = "the light house stands at sea, far from land; ships see it.".split()
CONFIG = """
[model]
dim = 32
num_layers = 2
num_heads = 2
num_kv_heads = 1
head_dim = 16
ffn_dim = 64

[attention]
topk = 4
full_attention_layers = [0]

[training]
seq_len = 64
steps = {steps}
lighthouse_steps = {lighthouse_steps}
gradient_accumulation = {accumulation}
threads = 1
device = "cpu"

[optimizer]
warmup_steps = 5

[data]
path = "{corpus}"

[validation]
interval = 10
sequences = 2

[checkpoint]
interval = {interval}
"""


class Failure(Exception):
    pass


def check(condition, message):
    if not condition:
        raise Failure(message)


class Experiment:
    def __init__(self, lighthouse, folder, kills, seed, ranks=1):
        self.lighthouse, self.folder, self.kills, self.ranks = lighthouse, folder, kills, ranks
        self.random = random.Random(seed)
        self.steps = max(30, kills * STEPS_A_LIFE)
        self.startup = 1.0  # seconds until the first step, measured again in every life
        self.ended_early = 0
        corpus = folder / "corpus.txt"
        corpus.write_text(" ".join(self.random.choice(WORDS) for _ in range(20000)))
        self.config = folder / "config.toml"
        self.config.write_text(CONFIG.format(steps=self.steps, lighthouse_steps=self.steps // 5, corpus=corpus,
                                             interval=INTERVAL, accumulation=max(2, ranks)))

    def start(self, run):
        log = open(self.folder / "log.txt", "w")
        launch = ["launch", "-n", str(self.ranks)] if self.ranks > 1 else []
        return subprocess.Popen([self.lighthouse, *launch, "train", "--config", self.config, "--logging.run_dir", run],
                                stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def log(self):
        return (self.folder / "log.txt").read_text()

    def finish(self, run):
        process = self.start(run)
        check(process.wait(timeout=3600) == 0, f"the run failed:\n{self.log()}")

    def kill(self, run):
        """Starts the run and kills it at a random moment."""
        process = self.start(run)
        if self.random.random() < 0.2:  # while it starts: libraries, corpus, checkpoint, metrics
            time.sleep(self.random.uniform(0, self.startup))
        else:
            self.wait_for_steps(process, run, self.random.randint(1, STEPS_A_LIFE))
            if self.ranks > 1:
                wait_for_save(process, run)
            time.sleep(self.random.uniform(0, 0.02))
        self.ended_early += process.poll() is not None
        children = children_of(process) if self.ranks > 1 and self.random.random() < 0.2 else []
        if children:
            os.kill(self.random.choice(children), signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(timeout=60)

    def wait_for_steps(self, process, run, count):
        """Until `count` steps were logged since the start, which first cuts the metrics to its checkpoint."""
        begin, first = time.monotonic(), None
        while process.poll() is None:
            if first is None and STARTED in self.log():
                first, self.startup = resumed_step(self.log()), time.monotonic() - begin
            if first is not None and last_step(run) - first >= count:
                return
            time.sleep(0.001)


def wait_for_save(process, run):
    while process.poll() is None and not list(run.glob("checkpoints/.lighthouse-tmp-*")):
        time.sleep(0.001)


def children_of(process):
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return [int(pid) for pid in listed.stdout.split()]


def resumed_step(log):
    found = re.search(r"resumed at step (\d+)$", log, re.MULTILINE)
    return int(found[1]) if found else 0


def read_lines(run):
    path = run / "metrics.jsonl"
    if not path.exists():
        return []
    *whole, _ = path.read_text().split("\n")  # what follows the last line's end is torn
    return [json.loads(line) for line in whole]


def last_step(run):
    path = run / "metrics.jsonl"
    lines = path.read_bytes().split(b"\n") if path.exists() else []
    return json.loads(lines[-2])["step"] if len(lines) > 1 else 0


def checkpoint_step(run):
    """The newest checkpoint with a manifest, which is written last."""
    steps = [json.loads(path.read_text())["step"] for path in run.glob("checkpoints/step-*/manifest.json")]
    return max(steps, default=0)


def timeless(lines):
    clocked = ("time", "train_seconds", "tokens_per_s", "mfu", "peak_memory", "parts", "ranks")
    return [{key: value for key, value in line.items() if key not in clocked} for line in lines]


def state(checkpoint):
    values = json.loads((checkpoint / "state.json").read_text())
    return {key: value for key, value in values.items() if key not in ("seconds", "train_seconds", "config")}


def check_same(run, unbroken):
    lines, expected = timeless(read_lines(run)), timeless(read_lines(unbroken))
    check([line["step"] for line in lines] == list(range(1, len(expected) + 1)), "metrics miss or repeat a step")
    for ours, theirs in zip(lines, expected):
        check(ours == theirs, f"metrics differ: {ours}\nunbroken: {theirs}")
    ours, theirs = (sorted(path.glob("checkpoints/step-*"))[-1] for path in (run, unbroken))
    check(ours.name == theirs.name, f"the last checkpoint is {ours.name}, unbroken {theirs.name}")
    names = [sorted(path.name for path in folder.glob("*.safetensors")) for folder in (ours, theirs)]
    check(names[0] == names[1] and names[0], f"files of the checkpoints: {names[0]}, unbroken {names[1]}")
    for name in names[0]:
        check((ours / name).read_bytes() == (theirs / name).read_bytes(), f"{name} differs from the unbroken run")
    check(state(ours) == state(theirs), f"the state differs: {state(ours)}\nunbroken: {state(theirs)}")


def run_experiment(lighthouse, folder, kills, seed=1, report=print, ranks=1):
    experiment = Experiment(lighthouse, folder, kills, seed, ranks)
    run, unbroken = folder / "killed", folder / "unbroken"
    experiment.finish(unbroken)
    report(f"unbroken run of {experiment.steps} steps done; seed {seed}")
    most_lost = lost = 0
    stages = {1: 0, 2: 0}
    for number in range(1, kills + 1):
        saved_before = checkpoint_step(run)
        experiment.kill(run)
        logged, saved = last_step(run), checkpoint_step(run)
        if STARTED in experiment.log():
            resumed = resumed_step(experiment.log())
            check(resumed == saved_before, f"kill {number}: resumed at step {resumed}, the checkpoint was {saved_before}")
        check(logged - saved <= 2 * INTERVAL, f"kill {number}: step {logged} was logged, the checkpoint is of {saved}")
        check(saved >= saved_before, f"kill {number}: the checkpoint went back from {saved_before} to {saved}")
        stages[1 if saved < experiment.steps // 5 else 2] += 1
        most_lost, lost = max(most_lost, logged - saved), lost + max(logged - saved, 0)
        if number % 10 == 0:
            report(f"{number} kills: at step {logged}, checkpoint of {saved}")
    check(experiment.ended_early == 0, f"{experiment.ended_early} of the kills came after the end of the run")
    check(kills < 10 or min(stages.values()) > 0, f"all kills came in one stage: {stages}")
    experiment.finish(run)
    check(not list(run.glob("checkpoints/.lighthouse-tmp-*")), "a temporary folder is left")
    check_same(run, unbroken)
    report(f"{kills} kills ({stages[1]} in stage 1): at most {most_lost} steps lost at once (interval {INTERVAL}), {lost} in all; "
           "weights, optimizer, state and metrics equal the unbroken run")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--lighthouse", type=Path, default=Path("build/release/bin/lighthouse"))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--ranks", type=int, default=1, help="processes that train together (1)")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lighthouse-kill-") as folder:
        try:
            run_experiment(arguments.lighthouse.resolve(), Path(folder), arguments.kills, arguments.seed, ranks=arguments.ranks)
        except Failure as failure:
            sys.exit(f"kill_resume: {failure}")


if __name__ == "__main__":
    main()

"""Makes the runs of plan.py, on one card or several, until all are made or the time is up.

A run that is done leaves its record in RESULTS/<name>/ (configuration, metrics, evaluation, how it was made), and is
not made again. A run that the end of the time stops goes on at the next call, on a machine that still has its folder.
"""
import argparse
import datetime
import fnmatch
import json
import math
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import plan

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
KEPT = ("config.toml", "run.json", "metrics.jsonl", "eval.json")
EVALUATION = ["--task", "loss,position,passkey,copy", "--context", "4096", "--sequences", "128", "--json"]


def parse_arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/bin/lighthouse", help="lighthouse")
    parser.add_argument("--corpus", type=Path, help="folder with train and heldout (that of each ladder in .corpus)")
    parser.add_argument("--results", type=Path, default=HERE / "results", help="records of the runs that are made")
    parser.add_argument("--work", type=Path, default=ROOT / "runs/two_stage", help="run folders")
    parser.add_argument("--cards", type=int, default=1, help="cards, each of which makes runs of its own (1)")
    parser.add_argument("--minutes", type=float, default=25, help="end after that; runs under way are saved (25)")
    parser.add_argument("--only", default="*", help="runs whose name matches, as 'a-*'")
    parser.add_argument("--list", action="store_true", help="say where the plan stands, and end")
    parser.add_argument("--list-corpora", action="store_true", help="name the folders of .corpus that are read, and end")
    return parser.parse_args()


def corpus_name(run):
    return f".corpus/{plan.LADDERS[run.ladder].corpus}"


class Results:
    """Records of runs that are made, failed ones too."""

    def __init__(self, folder):
        self.folder = folder

    def record(self, run):
        """None where the run is not made."""
        file = self.folder / run.name / "record.json"
        return json.loads(file.read_text()) if file.exists() else None

    def describe(self, run):
        record = self.record(run)
        if record is None:
            return "-"
        return f"done {record['date']}" if record["exit_code"] == 0 else f"failed with exit code {record['exit_code']}"

    def last_validation(self, run):
        """The dense loss; infinite where the run failed or diverged."""
        if self.record(run)["exit_code"] != 0:
            return math.inf
        lines = [json.loads(line) for line in (self.folder / run.name / "metrics.jsonl").read_text().splitlines()]
        loss = [line["validation_loss"] for line in lines if "validation_loss" in line][-1]
        return math.inf if loss is None else loss

    def rate_losses(self, ladder):
        tried = [*plan.RATES, plan.RATES[0] / 2, plan.RATES[-1] * 2]
        return {rate: self.last_validation(plan.rate_run(ladder, rate)) for rate in tried
                if self.record(plan.rate_run(ladder, rate))}

    def rate_runs(self, ladder):
        """Those of the ladder that are needed so far."""
        if plan.LADDERS[ladder].rate_steps == 0:
            return []
        return [plan.rate_run(ladder, rate) for rate in plan.rates(self.rate_losses(ladder))]

    def rate(self, ladder):
        """None while runs that find it are left."""
        if plan.LADDERS[ladder].rate_steps == 0:
            return plan.FIXED_RATE
        losses = self.rate_losses(ladder)
        left = set(plan.rates(losses)) - set(losses)
        return None if left else min(losses, key=losses.get)

    def keep(self, run, source, record, names):
        """The record appears whole or not at all, with `names` {path: name} for what lies elsewhere on another machine."""
        def renamed(text):
            for path, name in names.items():
                text = text.replace(path, name)
            return text

        result = self.folder / run.name
        partial = result.with_name(result.name + ".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        for name in KEPT:
            if (source / name).exists():
                text = renamed((source / name).read_text())
                (partial / name).write_text(json.dumps(json.loads(text)) + "\n" if name == "eval.json" else text)
        (partial / "record.json").write_text(renamed(json.dumps(record, indent=1)) + "\n")
        shutil.rmtree(result, ignore_errors=True)
        partial.rename(result)


class Runner:
    def __init__(self, arguments):
        self.arguments = arguments
        self.deadline = time.monotonic() + 60 * arguments.minutes
        self.results = Results(arguments.results)
        self.lock = threading.Condition()
        self.taken = set()

    def chosen(self, runs):
        return [run for run in runs if fnmatch.fnmatch(run.name, self.arguments.only)]

    def all_jobs(self):
        """Jobs in the order of the plan, those for the rate of a ladder before its first."""
        jobs = []
        for job in plan.jobs():
            ladder = job[0].ladder
            if not any(run.ladder == ladder for other in jobs for run in other):
                jobs += [[run] for run in self.results.rate_runs(ladder)]
            jobs.append(job)
        return [runs for runs in map(self.chosen, jobs) if runs]

    def next_job(self):
        """Runs for one card, marked as taken; None when none is left. Waits for a rate that another card looks for."""
        with self.lock:
            while time.monotonic() < self.deadline:
                waits = False
                for job in self.all_jobs():
                    left = [run for run in job if self.results.record(run) is None]
                    if not left or left[0].name in self.taken:
                        continue
                    if left[0].seed != plan.RATE_SEED and self.results.rate(left[0].ladder) is None:
                        waits = True
                        continue
                    self.taken.update(run.name for run in left)
                    return left
                if not waits or not any(run.seed == plan.RATE_SEED and self.results.record(run) is None
                                        for job in self.all_jobs() for run in job):
                    return None
                self.lock.wait(1)
        return None

    def corpus(self, run):
        return self.arguments.corpus or ROOT / corpus_name(run)

    def train_command(self, run):
        command = [self.arguments.program, "train", "--config", HERE / "two_stage.toml"]
        options = {"optimizer.learning_rate": self.results.rate(run.ladder)} | run.options
        options |= {"data.path": self.corpus(run) / "train", "data.validation_path": self.corpus(run) / "heldout",
                    "logging.run_dir": self.arguments.work / run.name}
        for key, value in options.items():
            command += [f"--{key}", value]
        return [str(part) for part in command]

    def call(self, command, card, out, messages):
        """The exit code; None where the end of the time stopped it, which saves what it has."""
        process = subprocess.Popen(command, stdout=out, stderr=messages,
                                   env=os.environ | {"CUDA_VISIBLE_DEVICES": str(card)})
        try:
            return process.wait(max(0.0, self.deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGTERM)
            process.wait()
            return None

    def make(self, run, card):
        """False when the time was up first."""
        folder = self.arguments.work / run.name
        folder.mkdir(parents=True, exist_ok=True)
        log = self.arguments.work / f"{run.name}.log"
        command = self.train_command(run)
        with log.open("ab") as messages:
            code = self.call(command, card, messages, messages)
            if code == 0 and run.seed != plan.RATE_SEED:
                evaluate = [str(self.arguments.program), "eval", "--run", str(folder), *EVALUATION]
                with (folder / "eval.json").open("wb") as out:
                    code = self.call(evaluate, card, out, messages)
        if code is None:
            return False
        record = {"ladder": run.ladder, "arm": run.arm, "seed": run.seed, "exit_code": code,
                  "date": datetime.date.today().isoformat(), "command": shlex.join(command)}
        if code != 0:
            record["messages"] = log.read_text(errors="replace")[-2000:]
        names = {str(self.arguments.program): "lighthouse", str(self.corpus(run)): corpus_name(run),
                 str(self.arguments.work): "runs/two_stage", str(ROOT) + os.sep: ""}
        with self.lock:
            self.results.keep(run, folder, record, names)
            self.lock.notify_all()
        return True

    def work(self, card):
        while job := self.next_job():
            for run in job:
                start = time.monotonic()
                print(f"card {card}: {run.name}", flush=True)
                if not self.make(run, card):
                    print(f"time is up; {run.name} is saved and goes on with the same command", flush=True)
                    return
                print(f"card {card}: {run.name} {self.results.describe(run)}, {time.monotonic() - start:.0f} s",
                      flush=True)

    def run_all(self):
        workers = [threading.Thread(target=self.work, args=(card,)) for card in range(self.arguments.cards)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()


def main():
    arguments = parse_arguments()
    runner = Runner(arguments)
    runs = [run for job in runner.all_jobs() for run in job]
    if not runs:
        sys.exit(f"no run is named like '{arguments.only}'")
    if arguments.list:
        for run in runs:
            print(f"{run.name:28} {runner.results.describe(run)}")
        return
    if arguments.list_corpora:
        print("\n".join(sorted({plan.LADDERS[run.ladder].corpus for run in runs})))
        return
    parts = sorted({runner.corpus(run) / part for run in runs for part in ("train", "heldout")})
    for path in (arguments.program, *parts):
        if not path.exists():
            sys.exit(f"'{path}' is missing; run.sh makes it")
    runner.run_all()
    runs = [run for job in runner.all_jobs() for run in job]
    made = sum(runner.results.record(run) is not None for run in runs)
    print(f"{made} of {len(runs)} runs are made", flush=True)


if __name__ == "__main__":
    main()

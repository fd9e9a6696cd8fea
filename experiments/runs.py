"""What the experiments share: runs that are made once each, in pieces of time, with a record of each.

A run that is done leaves its record in RESULTS/<name>/ (configuration, metrics, evaluation, how it was made), and is
not made again. A run that the end of the time stops goes on at the next call, on a machine that still has its folder.
"""
import argparse
import datetime
import fnmatch
import json
import os
import shlex
import shutil
import signal
import subprocess
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
KEPT = ("config.toml", "run.json", "metrics.jsonl", "eval*.json")


def argument_parser(description, folder):
    """With the options that all experiments have; `folder` is that of one."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--program", type=Path, default=ROOT / "build/release/bin/lighthouse", help="lighthouse")
    parser.add_argument("--results", type=Path, default=folder / "results", help="records of the runs that are made")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / folder.name, help="run folders")
    parser.add_argument("--cards", type=int, default=1, help="cards, each of which makes runs of its own (1)")
    parser.add_argument("--minutes", type=float, default=25, help="end after that; runs under way are saved (25)")
    parser.add_argument("--only", default="*", help="runs whose name matches, as 'a-*'")
    parser.add_argument("--list", action="store_true", help="say where the plan stands, and end")
    return parser


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
        for file in sorted(file for pattern in KEPT for file in source.glob(pattern)):
            text = renamed(file.read_text())
            is_evaluation = file.name.startswith("eval")
            (partial / file.name).write_text(json.dumps(json.loads(text)) + "\n" if is_evaluation and text else text)
        (partial / "record.json").write_text(renamed(json.dumps(record, indent=1)) + "\n")
        shutil.rmtree(result, ignore_errors=True)
        partial.rename(result)


class Runner:
    """Makes runs, on one card or several. Those of an experiment have a `name`; a class of its own says which there are and what is
    called for one."""

    def __init__(self, arguments, results, folder):
        self.arguments = arguments
        self.folder = folder  # of the experiment
        self.deadline = time.monotonic() + 60 * arguments.minutes
        self.results = results
        self.lock = threading.Condition()
        self.taken = {}  # runs by name, of some card

    def jobs(self):
        """Lists of runs that one card makes one after another, in the order of the plan."""
        raise NotImplementedError

    def is_ready(self, run):
        """Whether what it needs of other runs is there."""
        return True

    def commands(self, run):
        """(command, name of a file of the run folder for its output or None for the log) of each, one after another."""
        raise NotImplementedError

    def is_made(self, run, command):
        """Whether a command has done its part at an earlier call."""
        return False

    def description(self, run):
        """What its record has beside exit code, date and command."""
        raise NotImplementedError

    def names(self, run):
        """Paths that stand in records by another name."""
        return {str(self.arguments.program): "lighthouse", str(self.arguments.work): f"runs/{self.folder.name}", str(ROOT) + os.sep: ""}

    def chosen(self, runs):
        return [run for run in runs if fnmatch.fnmatch(run.name, self.arguments.only)]

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
        commands = self.commands(run)
        with log.open("ab") as messages:
            for command, output in commands:
                if self.is_made(run, command):
                    continue
                with (folder / output if output else log).open("wb" if output else "ab") as out:
                    code = self.call(command, card, out, messages)
                if code != 0:
                    break
        if code is None:
            return False
        record = self.description(run) | {"exit_code": code, "date": datetime.date.today().isoformat(),
                                          "command": " && ".join(shlex.join(command) for command, output in commands if output is None)
                                          or shlex.join(commands[0][0])}
        if code != 0:
            record["messages"] = log.read_text(errors="replace")[-2000:]
        with self.lock:
            self.results.keep(run, folder, record, self.names(run))
            self.lock.notify_all()
        return True

    def make_and_say(self, run, card):
        start = time.monotonic()
        print(f"card {card}: {run.name}", flush=True)
        if not self.make(run, card):
            print(f"time is up; {run.name} is saved and goes on with the same command", flush=True)
            return False
        print(f"card {card}: {run.name} {self.results.describe(run)}, {time.monotonic() - start:.0f} s", flush=True)
        return True

    def next_job(self):
        """Runs for one card, now taken; None when none is left. Waits for what other cards make."""
        with self.lock:
            while time.monotonic() < self.deadline:
                waits = False
                for job in self.jobs():
                    left = [run for run in job if self.results.record(run) is None]
                    if not left or left[0].name in self.taken:
                        continue
                    if self.is_ready(left[0]):
                        self.taken |= {run.name: run for run in left}
                        return left
                    waits = True
                if not waits or all(self.results.record(run) for run in self.taken.values()):
                    return None
                self.lock.wait(1)
        return None

    def work(self, card):
        while job := self.next_job():
            for run in job:
                if not self.make_and_say(run, card):
                    return

    def run_all(self):
        workers = [threading.Thread(target=self.work, args=(card,)) for card in range(self.arguments.cards)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        self.say_where_it_stands([run for job in self.jobs() for run in job])

    def say_where_it_stands(self, runs):
        made = sum(self.results.record(run) is not None for run in runs)
        waiting = [run.name for run in runs if not self.results.record(run) and not self.is_ready(run)]
        if waiting:
            print(f"{len(waiting)} of them wait for runs that have no record in {self.results.folder}, as {waiting[0]}")
        print(f"{made} of {len(runs)} runs are made", flush=True)

"""Makes the runs of plan.py, on one card or several, until all are made or the time is up.

A run that is done leaves its record in RESULTS/<name>/ (configuration, metrics, evaluation, how it was made), and is
not made again. A run that the end of the time stops goes on at the next call, on a machine that still has its folder.
"""
import json
import math
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import plan
import runs as shared

ROOT = shared.ROOT
EVALUATION = ["--task", "loss,position,passkey,copy", "--context", "4096", "--sequences", "128", "--json"]


def parse_arguments():
    parser = shared.argument_parser(__doc__, HERE)
    parser.add_argument("--corpus", type=Path, help="folder with train and heldout (that of each ladder in .corpus)")
    parser.add_argument("--list-corpora", action="store_true", help="name the folders of .corpus that are read, and end")
    return parser.parse_args()


def corpus_name(run):
    return f".corpus/{plan.LADDERS[run.ladder].corpus}"


class Results(shared.Results):
    """They say which rate a ladder takes."""

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


class Runner(shared.Runner):
    def __init__(self, arguments):
        super().__init__(arguments, Results(arguments.results), HERE)

    def jobs(self):
        """Those for the rate of a ladder come before its first."""
        jobs = []
        for job in plan.jobs():
            ladder = job[0].ladder
            if not any(run.ladder == ladder for other in jobs for run in other):
                jobs += [[run] for run in self.results.rate_runs(ladder)]
            jobs.append(job)
        return [runs for runs in map(self.chosen, jobs) if runs]

    def is_ready(self, run):
        return run.seed == plan.RATE_SEED or self.results.rate(run.ladder) is not None

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

    def commands(self, run):
        commands = [(self.train_command(run), None)]
        if run.seed != plan.RATE_SEED:
            evaluate = [str(self.arguments.program), "eval", "--run", str(self.arguments.work / run.name), *EVALUATION]
            commands.append((evaluate, "eval.json"))
        return commands

    def description(self, run):
        return {"ladder": run.ladder, "arm": run.arm, "seed": run.seed}

    def names(self, run):
        return {str(self.arguments.program): "lighthouse", str(self.corpus(run)): corpus_name(run)} | super().names(run)


def main():
    arguments = parse_arguments()
    runner = Runner(arguments)
    runs = [run for job in runner.jobs() for run in job]
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


if __name__ == "__main__":
    main()

"""Makes the runs of plan.py, until all are made or the time is up, and says what they have found.

A run that is done leaves its record in RESULTS/<name>/ (configuration, metrics, evaluation, how it was made), and is
not made again. A run that the end of the time stops goes on at the next call, on a machine that still has its folder.
"""
import json
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))

import plan
import runs as shared
import summarize

ROOT = shared.ROOT
MODEL, TOKENS = ".corpus/smollm2/model", ".corpus/long-texts.tokens"
SEQUENCES = 16  # of each text that is held out


def parse_arguments():
    parser = shared.argument_parser(__doc__, HERE)
    parser.add_argument("--config", type=Path, default=HERE / "extension.toml", help="what all runs share")
    parser.add_argument("--model", type=Path, default=ROOT / MODEL, help="folder of transformers")
    parser.add_argument("--tokens", type=Path, default=ROOT / TOKENS, help="what run.sh has prepared")
    parser.add_argument("--seq-len", type=int, default=plan.SEQ_LEN, help=f"tokens of a sequence ({plan.SEQ_LEN})")
    parser.add_argument("--steps", type=int, default=plan.STEPS, help=f"of dense training ({plan.STEPS})")
    return parser.parse_args()


class Runner(shared.Runner):
    def __init__(self, arguments):
        super().__init__(arguments, shared.Results(arguments.results), HERE)
        config = arguments.model / "config.json"
        layers = json.loads(config.read_text())["num_hidden_layers"] if config.exists() else 0  # --list needs no model
        self.runs = self.chosen(plan.runs(layers, arguments.seq_len, arguments.steps))

    def jobs(self):
        return [[run] for run in self.runs]

    def corpus(self, part, kind):
        return self.arguments.tokens / f"{part}-{kind}" / "train"

    def train_commands(self, run):
        return [self.train_command(run, options, run.changing() if number else []) for number, options in enumerate(run.phases())]

    def train_command(self, run, options, changing):
        options = options | {
            "training.initial_weights": self.arguments.model,
            "data.mixture": ",".join(f"{self.corpus('train', kind)}={share}" for kind, share in plan.SHARES.items()),
            "data.validation_path": self.corpus("heldout", "code"), "logging.run_dir": self.arguments.work / run.name}
        return self.words("train", "--config", self.arguments.config,
                          *(word for key, value in options.items() for word in (f"--{key}", value)),
                          *(("--change", ",".join(changing)) if changing else ()))

    def words(self, *words):
        return [str(word) for word in (self.arguments.program, *words)]

    def commands(self, run):
        if run.arm in plan.BEFORE:
            trained = []
            of_model = ("--model", self.arguments.model if run.arm == "as-it-is" else self.with_new_base(run))
        else:
            trained = [(command, None) for command in self.train_commands(run)]
            of_model = ("--run", self.arguments.work / run.name)
        return trained + [
            (self.words("eval", *of_model, "--data", self.corpus("heldout", kind), "--task", "loss,position", "--attention", "dense",
                        "--sequences", SEQUENCES, "--seq-len", self.arguments.seq_len, "--precision", "bf16", "--json"),
             f"eval-{kind}.json") for kind in plan.SHARES]

    def is_made(self, run, command):
        """A part whose steps are done is not begun again: the run has gone on since."""
        if "--training.steps" not in command:
            return False
        checkpoints = (self.arguments.work / run.name / "checkpoints").glob("step-*")
        done = max((int(path.name.removeprefix("step-")) for path in checkpoints if path.name[5:].isdigit()), default=0)
        return 0 < int(command[command.index("--training.steps") + 1]) < done

    def with_new_base(self, run):
        """The model's folder with the rope_theta of the configuration in its config.json."""
        folder = self.arguments.work / run.name / "model"
        folder.mkdir(parents=True, exist_ok=True)
        for file in self.arguments.model.iterdir():
            link = folder / file.name
            if not link.is_symlink() and file.name != "config.json":
                link.symlink_to(file.resolve())
        config = json.loads((self.arguments.model / "config.json").read_text())
        config.pop("rope_parameters", None)
        (folder / "config.json").write_text(json.dumps(config | {"rope_theta": rope_theta(self.arguments.config)}))
        return folder

    def description(self, run):
        return {"arm": run.arm, "seed": run.seed}

    def names(self, run):
        return {str(self.arguments.config): f"experiments/{HERE.name}/extension.toml", str(self.arguments.model): MODEL,
                str(self.arguments.tokens): TOKENS} | super().names(run)


def rope_theta(config):
    """model.rope_theta of a configuration."""
    [line] = [line for line in config.read_text().splitlines() if line.startswith("rope_theta = ")]
    return float(line.split()[2])


def main():
    arguments = parse_arguments()
    runner = Runner(arguments)
    if not runner.runs:
        sys.exit(f"no run is named like '{arguments.only}'")
    if arguments.list:
        for run in runner.runs:
            print(f"{run.name:28} {runner.results.describe(run)}")
        return
    tokens = (arguments.tokens / f"{part}-{kind}" for part in ("train", "heldout") for kind in plan.SHARES)
    for path in (arguments.program, arguments.model / "config.json", *tokens):
        if not path.exists():
            sys.exit(f"'{path}' is missing; run.sh makes it")
    runner.run_all()
    print(summarize.table(arguments.results))


if __name__ == "__main__":
    main()

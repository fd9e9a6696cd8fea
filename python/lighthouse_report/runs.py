"""The folder of a run: config.toml, metrics.jsonl, and where there are any run.json, checkpoints/*/state.json and eval*.json."""

from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

from .errors import Damaged, ReportError, UsageError
from .evaluation import Evaluation, read_evaluation
from .json_files import (
    LARGEST, LEAST_LOSS, MOST, finite, number, of_kind, optional, read_json, read_json_lines, read_text, whole)
from .text import brief

LOSS, COUNT = (LEAST_LOSS, LARGEST), (0, MOST)  # limits of numbers
NUMBERS = {"loss": LOSS, "grad_norm": (0, LARGEST), "tokens": COUNT, "tokens_per_s": COUNT, "time": COUNT, "train_seconds": COUNT,
           "peak_memory": COUNT, "validation_loss": LOSS, "validation_loss_lighthouse": LOSS}
FINGERPRINTS = ("content", "evaluation", "order")  # of: the text, what was evaluated, and the text as the run reads it
WHOLE = ("training.steps", "training.lighthouse_steps", "training.seed", "data.seed")


@dataclass(frozen=True)
class Run:
    path: Path
    config: dict            # "training.steps" -> value
    records: list           # lines of metrics.jsonl, steps ascending; numbers are finite or absent
    evaluation: Evaluation
    fingerprints: dict      # those known of FINGERPRINTS
    machine: str            # "NVIDIA H100 80GB HBM3, 8 threads, torch 2.11.0", or what of it is known
    changes: list           # [{"step", "key", "before", "after"}]: what starts of it have changed (train --change)

    @property
    def steps(self):
        return self.config["training.steps"]

    @property
    def lighthouse_steps(self):
        return min(self.config["training.lighthouse_steps"], self.steps)

    @property
    def seeds(self):
        """Of the initial weights and of the order of the data: runs that agree in both are a pair."""
        return self.config["training.seed"], self.config["data.seed"]

    @property
    def seed_name(self):
        weights, data = self.seeds
        return str(weights) if weights == data else f"{weights} / {data}"

    @property
    def last(self):
        return self.records[-1]

    @property
    def complete(self):
        return self.last["step"] >= self.steps

    @property
    def validations(self):
        return [record for record in self.records if "validation_loss" in record]

    @property
    def fingerprint(self):
        return next(iter(self.fingerprints.values()), "unknown")

    def other_corpus(self, run):
        """The two fingerprints that say that the corpora differ; None where nothing does. That of the order depends on seed,
        length and packing too: it decides only where the text itself is not known."""
        sources = [source for source in FINGERPRINTS if source in self.fingerprints and source in run.fingerprints]
        if "content" in sources or self.seeds != run.seeds:
            sources = [source for source in sources if source != "order"]
        pairs = [(self.fingerprints[source], run.fingerprints[source]) for source in sources]
        return next((pair for pair in pairs if pair[0] != pair[1]), None)


def read_run(path):
    config_file, metrics_file = path / "config.toml", path / "metrics.jsonl"
    if not path.is_dir():
        raise UsageError(f"{path}: no such run folder")
    for file in (config_file, metrics_file):
        if not file.is_file():
            raise ReportError(f"{path}: no run of `lighthouse train`: it has no {file.name}")
    config, records = read_config(config_file), read_records(metrics_file)
    if not records:
        raise ReportError(f"{metrics_file}: no step yet; try again when the run has made some")
    end = max(config["training.steps"], records[-1]["step"])
    evaluation = read_evaluation(path, config.get("training.seq_len"), end)
    content, order, machine, changes = read_description(path)
    fingerprints = dict(zip(FINGERPRINTS, (content, evaluation.fingerprint, order)))
    known = {source: value for source, value in fingerprints.items() if value}
    return Run(path, config, records, evaluation, known, machine, changes)


def read_description(path):
    """Fingerprints of the text and of its order, the machine and the changes, from run.json; of runs from before there was
    one, from the state of the newest checkpoint; nothing is known without either."""
    file = path / "run.json"
    file = file if file.is_file() else newest_state(path)
    if file is None:
        return None, None, "unknown", []
    description = read_json(file)
    try:
        corpus = optional(description, "corpus", dict, description)
        content, order = (optional(corpus, key, str) for key in ("content", "fingerprint"))
        return content, order, machine_of(description), changes_of(description)
    except Damaged as error:
        raise ReportError(f"{file}: damaged: {error}") from error


def changes_of(description):
    changes = optional(description, "changes", list, [])
    words = ("key", "before", "after")
    if not all(isinstance(change, dict) and all(isinstance(change.get(word), str) for word in words) for change in changes):
        raise Damaged("changes must be a list of step, key, before and after")
    for change in changes:
        whole(change.get("step"), "step of a change")
    return changes


def machine_of(description):
    name, device = (optional(description, key, str) for key in ("device_name", "device"))
    if device is None:
        return "unknown"
    threads = whole(description["threads"], "threads") if "threads" in description else "?"
    versions = {key: optional(description, key, str) for key in ("lighthouse", "torch")}
    return ", ".join([name or device, f"{threads} threads", *(f"{key} {version}" for key, version in versions.items() if version)])


def read_config(file):
    try:
        sections = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ReportError(f"{file}: damaged: {error}") from error
    except (ValueError, RecursionError) as error:
        raise ReportError(f"{file}: damaged: a number of too many digits, or nested too deeply") from error
    config = {f"{section}.{key}": value for section, keys in sections.items() if isinstance(keys, dict)
              for key, value in keys.items()}
    for key in WHOLE:
        if type(config.get(key)) is not int:
            raise ReportError(f"{file}: {key} is {brief(config.get(key, 'missing'))}; must be an integer")
    for key, low in (("training.steps", 1), ("training.lighthouse_steps", 0)):
        if not low <= config[key] <= MOST:
            raise ReportError(f"{file}: {key} is {brief(config[key])}; must be from {low} to {MOST}")
    return config


def read_records(file):
    records = []
    for line, fields in read_json_lines(file):
        try:
            record = read_record(fields)
        except Damaged as error:
            raise ReportError(f"{file}:{line}: damaged: {error}") from error
        if records and record["step"] <= records[-1]["step"]:
            raise ReportError(f"{file}:{line}: damaged: step {record['step']} after step {records[-1]['step']}")
        records.append(record)
    return records


def read_record(fields):
    for key in ("step", "stage", "tokens"):
        if key not in fields:
            raise Damaged(f"{key} is missing")
    finite(fields["tokens"], "tokens", *COUNT)
    numbers = {key: number(fields[key], key, *limits) for key, limits in NUMBERS.items() if key in fields}
    return {"step": whole(fields["step"], "step", 1), "stage": whole(fields["stage"], "stage", 1, 2),
            "spike": optional(fields, "spike", str), "sources": source_losses(fields.get("sources", {})),
            **{key: value for key, value in numbers.items() if value is not None}}


def source_losses(sources):
    """{corpus: dense validation loss} of a line of a mixture, of those that have one."""
    found = {}
    for name, source in of_kind(sources, dict, "sources").items():
        value = number(of_kind(source, dict, "an entry of sources").get("validation_loss"), "validation_loss", *LOSS)
        if value is not None:
            found[name] = value
    return found


def newest_state(path):
    """state.json of the newest checkpoint; None without one. The trainer may remove an old one meanwhile."""
    states = sorted(path.glob("checkpoints/step-*/state.json"), reverse=True)
    return next((file for file in states if file.is_file()), None)

"""The folder of a run: config.toml, metrics.jsonl, and where there are any run.json, checkpoints/*/state.json and eval*.json."""

from dataclasses import dataclass
from pathlib import Path

try:
    import tomllib
except ModuleNotFoundError:  # Python 3.10
    import tomli as tomllib

from .errors import ReportError
from .evaluation import Evaluation, read_evaluation
from .json_files import number, read_json, read_json_lines, read_text

NUMBERS = ("loss", "grad_norm", "tokens", "tokens_per_s", "time", "train_seconds", "peak_memory", "validation_loss",
           "validation_loss_lighthouse")
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
        raise ReportError(f"{path}: no such run folder")
    for file in (config_file, metrics_file):
        if not file.is_file():
            raise ReportError(f"{path}: no run of `lighthouse train`: it has no {file.name}")
    records = read_records(metrics_file)
    if not records:
        raise ReportError(f"{metrics_file}: no step yet; try again when the run has made some")
    evaluation = read_evaluation(path)
    description = read_description(path)
    corpus = description.get("corpus", description)
    fingerprints = dict(zip(FINGERPRINTS, (corpus.get("content"), evaluation.fingerprint, corpus.get("fingerprint"))))
    return Run(path, read_config(config_file), records, evaluation,
               {source: str(value) for source, value in fingerprints.items() if value}, machine_of(description),
               read_changes(path, description))


def read_description(path):
    """run.json; of runs from before there was one, the state of the newest checkpoint; {} without either."""
    file = path / "run.json"
    return read_json(file) if file.is_file() else newest_state(path)


def read_changes(path, description):
    changes = description.get("changes", [])
    words = ("key", "before", "after")
    if not (isinstance(changes, list) and all(isinstance(change, dict) and type(change.get("step")) is int
                                              and all(isinstance(change.get(word), str) for word in words) for change in changes)):
        raise ReportError(f"{path}: run.json is damaged: changes must be a list of step, key, before and after")
    return changes


def machine_of(description):
    if "device" not in description:
        return "unknown"
    parts = [description.get("device_name") or description["device"], f"{description.get('threads', '?')} threads"]
    parts += [f"{name} {description[name]}" for name in ("lighthouse", "torch") if name in description]
    return ", ".join(map(str, parts))


def read_config(file):
    try:
        sections = tomllib.loads(read_text(file))
    except tomllib.TOMLDecodeError as error:
        raise ReportError(f"{file}: damaged: {error}") from error
    config = {f"{section}.{key}": value for section, keys in sections.items() if isinstance(keys, dict)
              for key, value in keys.items()}
    for key in WHOLE:
        if type(config.get(key)) is not int:
            raise ReportError(f"{file}: {key} is {config.get(key, 'missing')!r}; must be an integer")
    if config["training.steps"] < 1:
        raise ReportError(f"{file}: training.steps is {config['training.steps']}; must be at least 1")
    return config


def read_records(file):
    records = []
    for line, record in read_json_lines(file):
        step = record.get("step")
        try:
            numbers = {key: number(record[key]) for key in NUMBERS if key in record}
            sources = source_losses(record.get("sources", {}))
            if type(step) is not int or record.get("stage") not in (1, 2) or numbers.get("tokens") is None:
                raise TypeError("step, stage and tokens must be there")
        except TypeError as error:
            raise ReportError(f"{file}:{line}: damaged: {error}") from error
        if records and step <= records[-1]["step"]:
            raise ReportError(f"{file}:{line}: damaged: step {step} after step {records[-1]['step']}")
        records.append({"step": step, "stage": record["stage"], "spike": record.get("spike"), "sources": sources,
                        **{key: value for key, value in numbers.items() if value is not None}})
    return records


def source_losses(sources):
    """{corpus: dense validation loss} of a line of a mixture, of those that have one."""
    if not isinstance(sources, dict) or not all(isinstance(source, dict) for source in sources.values()):
        raise TypeError("sources must be an object of objects")
    found = {name: number(source["validation_loss"]) for name, source in sources.items() if "validation_loss" in source}
    return {name: value for name, value in found.items() if value is not None}


def newest_state(path):
    """state.json of the newest checkpoint; {} without one. The trainer may remove an old one meanwhile."""
    for file in sorted(path.glob("checkpoints/step-*/state.json"), reverse=True):
        if file.is_file():
            return read_json(file)
    return {}

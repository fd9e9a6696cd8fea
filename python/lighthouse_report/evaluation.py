"""RUN/eval*.json, as `lighthouse eval --json` writes them: of each task the result that choose() takes of all files."""

from collections import defaultdict
from dataclasses import dataclass, field

from .errors import Damaged, ReportError
from .json_files import LEAST_LOSS, finite, member, number, objects, of_kind, optional, read_json, whole
from .text import brief

FORMAT = 1
LOSSES = ("validation_loss", "validation_loss_lighthouse")


@dataclass(frozen=True)
class Result:
    """Of one task and, of some tasks, one attention."""
    file: object
    step: int
    seq_len: int | None
    size: int          # what it was measured on: sequences or prompts; 0: not known
    values: object     # as the task's reader below makes them


@dataclass
class Evaluation:
    results: dict = field(default_factory=dict)  # ("position", "dense"), ("passkey", None), … -> Result
    fingerprint: str | None = None

    def values(self, task, attention=None, default=None):
        return self.results[task, attention].values if (task, attention) in self.results else default

    @property
    def losses(self):
        """"dense", "lighthouse" -> SequenceLosses"""
        return {attention: result.values for (task, attention), result in self.results.items() if task == "loss"}

    @property
    def positions(self):
        """{"attention", "begin", "end", "value", "half_width"}"""
        return [{"attention": attention, **bucket} for (task, attention), result in self.results.items() if task == "position"
                for bucket in result.values]

    @property
    def retrieval(self):
        """"passkey", "multikey" -> [{"length", "depth", "correct", "trials"}]"""
        return {task: result.values for (task, _), result in self.results.items() if task in ("passkey", "multikey")}

    @property
    def copies(self):
        """{"distance", "value", "half_width"}"""
        return self.values("copy", default={"cells": []})["cells"]

    @property
    def copy_chance(self):
        """Bits per byte."""
        return self.values("copy", default={"chance": None})["chance"]

    @property
    def context(self):
        """{"length", "difference"}: loss with the last tokens only minus full"""
        return self.values("context")


@dataclass(frozen=True)
class SequenceLosses:
    step: int
    seq_len: int
    loss: float        # nats per token over all sequences
    sequences: dict    # index -> loss of that sequence

    @property
    def measured_on(self):
        """Losses that agree in it are of one step and the same text."""
        return self.step, self.seq_len, tuple(self.sequences)


def read_evaluation(run_dir, seq_len, last_step):
    """seq_len: that of training, if it is known; last_step: the latest that the run can have."""
    found, fingerprint = defaultdict(list), None
    for file in sorted(run_dir.glob("eval*.json")):
        result = read_json(file)
        check_kind(file, result, run_dir)
        try:
            own = optional(optional(result, "corpus", dict, {}), "fingerprint", str, fingerprint)
            for key, part in read_results(file, result, last_step):
                found[key].append(part)
        except Damaged as error:
            raise ReportError(f"{file}: not what `lighthouse eval --json` writes: {error}") from error
        if fingerprint not in (None, own):
            raise ReportError(f"{file}: measured on another corpus than the other results in this folder (fingerprints "
                              f"{own} and {fingerprint}); give one of them a name other than eval*.json")
        fingerprint = own
    return Evaluation({key: choose(key[0], results, seq_len) for key, results in found.items()}, fingerprint)


def check_kind(file, result, run_dir):
    if result.get("format") != FORMAT:
        raise ReportError(f"{file}: format {brief(result.get('format', 'missing'))}; this program reads {FORMAT}: write it again "
                          "with `lighthouse eval --json` of the same version")
    if type(result.get("step")) is not int:
        raise ReportError(f"{file}: step {brief(result.get('step', 'missing'))}; results of a run have a step: write it with "
                          f"`lighthouse eval --run {run_dir} --json`")


def choose(task, results, seq_len):
    """The latest step; of these the sequence length of training; of these the most sequences or prompts."""
    def rank(result):
        return result.step, result.seq_len == seq_len, result.size
    best = max(results, key=rank)
    for other in results:
        if rank(other) == rank(best) and other.values != best.values:
            raise ReportError(f"{best.file} and {other.file}: different results of {task} after step {best.step}, and nothing says "
                              "which counts; give one of them a name other than eval*.json")
    return best


def read_results(file, result, last_step):
    """((task, attention), Result) of each task of a file."""
    step = whole(result["step"], "step", 0, last_step)
    seq_len = None if result.get("seq_len") is None else whole(result["seq_len"], "seq_len", 1)
    for key in LOSSES:
        number(result.get(key), key, LEAST_LOSS)
    sequences = optional(result, "corpus", dict, {}).get("sequences", 0)
    for task, values in member(result, "tasks", dict).items():
        if task not in READERS:
            continue
        parts = of_kind(values, dict, task)
        if task == "context":
            parts = {None: optional(parts, "dense", dict, parts)}
        elif task not in BY_ATTENTION:
            parts = {None: parts}
        for attention, part in parts.items():
            size = size_of(part, sequences)
            read = READERS[task](part, step, seq_len)
            if read is not None:
                yield (task, attention), Result(file, step, seq_len, size, read)


def size_of(part, sequences):
    """Prompts of the cells of a task that has them, else sequences."""
    if isinstance(part, dict) and "cells" in part:
        return sum(whole(cell.get("trials", 1), "trials", 1) for cell in objects(part["cells"], "cells"))
    return whole(sequences, "sequences")


def read_losses(part, step, seq_len):
    loss = number(member(of_kind(part, dict, "loss of an attention"), "loss", object), "loss", LEAST_LOSS)
    if loss is None:
        return None
    sequences = {whole(entry.get("index"), "index"): number(entry.get("loss"), "loss", LEAST_LOSS)
                 for entry in objects(part.get("sequences", []), "sequences")}
    return SequenceLosses(step, whole(seq_len, "seq_len", 1), loss, sequences)


def read_positions(part, _step, _seq_len):
    return [{**stretch(bucket), **value_of(bucket, "loss")} for bucket in objects(part, "position")
            if number(member(bucket, "loss", object), "loss", LEAST_LOSS) is not None]


def stretch(bucket):
    begin = whole(bucket.get("begin"), "begin")
    return {"begin": begin, "end": whole(bucket.get("end"), "end", begin + 1)}


def read_retrieval(part, _step, _seq_len):
    cells = []
    for cell in objects(member(part, "cells", list), "cells"):
        trials = whole(cell.get("trials"), "trials", 1)
        number(cell.get("accuracy"), "accuracy", 0, 1)
        cells.append({"length": whole(cell.get("length"), "length", 1), "depth": finite(cell.get("depth"), "depth", 0, 1),
                      "correct": whole(cell.get("correct"), "correct", 0, trials), "trials": trials})
    return cells


def read_copies(part, _step, _seq_len):
    cells = [{"distance": whole(cell.get("distance"), "distance", 1), **value_of(cell, "bits_per_byte")}
             for cell in objects(member(part, "cells", list), "cells")
             if number(member(cell, "bits_per_byte", object), "bits_per_byte", LEAST_LOSS) is not None]
    return {"cells": cells, "chance": number(part.get("chance_bits"), "chance_bits", 0)}


def read_context(part, _step, _seq_len):
    difference = number(member(part, "difference", object), "difference")
    length = whole(member(part, "length", object), "length", 1)
    return None if difference is None else {"length": length, "difference": difference}


def value_of(entry, key):
    """The value and half of its normal 95 % interval over sequences or trials."""
    error = number(entry.get("standard_error"), "standard_error", 0)
    return {"value": number(entry[key], key), "half_width": None if error is None else 1.96 * error}


BY_ATTENTION = ("loss", "position")
READERS = {"loss": read_losses, "position": read_positions, "passkey": read_retrieval, "multikey": read_retrieval,
           "copy": read_copies, "context": read_context}

"""RUN/eval*.json, as `lighthouse eval --json` writes them: the results of all files together, of the latest step each."""

from dataclasses import dataclass, field

from .errors import ReportError
from .json_files import finite, number, read_json

FORMAT = 1


@dataclass
class Evaluation:
    losses: dict = field(default_factory=dict)      # "dense", "lighthouse" -> SequenceLosses
    positions: list = field(default_factory=list)   # {"attention", "begin", "end", "value", "half_width"}
    retrieval: dict = field(default_factory=dict)   # "passkey", "multikey" -> [{"length", "depth", "correct", "trials"}]
    copies: list = field(default_factory=list)      # {"distance", "value", "half_width"}
    copy_chance: float | None = None                # bits per byte
    context: dict | None = None                     # {"length", "difference"}: loss with the last tokens only minus full
    fingerprint: str | None = None


@dataclass(frozen=True)
class SequenceLosses:
    step: int
    seq_len: int
    loss: float        # nats per token over all sequences
    sequences: dict    # index -> loss of that sequence


def read_evaluation(run_dir):
    files = []
    for file in sorted(run_dir.glob("eval*.json")):
        result = read_json(file)
        if result.get("format") != FORMAT:
            raise ReportError(f"{file}: format {result.get('format', 'missing')}; this program reads {FORMAT}: write it again "
                              "with `lighthouse eval --json` of the same version")
        if type(result.get("step")) is not int:
            raise ReportError(f"{file}: step {result.get('step', 'missing')!r}; results of a run have a step: write it with "
                              f"`lighthouse eval --run {run_dir} --json`")
        files.append((file, result))
    evaluation = Evaluation()
    for file, result in sorted(files, key=lambda pair: pair[1]["step"]):
        try:
            fingerprint = result.get("corpus", {}).get("fingerprint", evaluation.fingerprint)
            if evaluation.fingerprint not in (None, fingerprint):
                raise ReportError(f"{file}: measured on another corpus than the other results in this folder (fingerprints "
                                  f"{fingerprint} and {evaluation.fingerprint}); give one of them a name other than eval*.json")
            evaluation.fingerprint = fingerprint
            for task, values in result["tasks"].items():
                if task in READERS:
                    READERS[task](evaluation, task, values, result)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ReportError(f"{file}: not what `lighthouse eval --json` writes: {type(error).__name__}: {error}") from error
    return evaluation


def read_losses(evaluation, _task, values, result):
    for attention, loss in values.items():
        if number(loss["loss"]) is not None:
            sequences = {entry["index"]: number(entry["loss"]) for entry in loss.get("sequences", [])}
            evaluation.losses[attention] = SequenceLosses(result["step"], finite(result["seq_len"]), loss["loss"], sequences)


def read_positions(evaluation, _task, values, _result):
    evaluation.positions = [
        {"attention": attention, "begin": finite(bucket["begin"]), "end": finite(bucket["end"]), **value_of(bucket, "loss")}
        for attention, buckets in values.items() for bucket in buckets if number(bucket["loss"]) is not None]


def read_retrieval(evaluation, task, values, _result):
    evaluation.retrieval[task] = [{key: finite(cell[key]) for key in ("length", "depth", "correct", "trials")}
                                  for cell in values["cells"]]


def read_copies(evaluation, _task, values, _result):
    evaluation.copy_chance = number(values.get("chance_bits"))
    evaluation.copies = [{"distance": finite(cell["distance"]), **value_of(cell, "bits_per_byte")}
                         for cell in values["cells"] if number(cell["bits_per_byte"]) is not None]


def read_context(evaluation, _task, values, _result):
    values = values.get("dense", values)
    evaluation.context = {"length": number(values["length"]), "difference": number(values["difference"])}


def value_of(entry, key):
    """The value and half of its normal 95 % interval over sequences or trials."""
    error = number(entry.get("standard_error"))
    return {"value": number(entry[key]), "half_width": None if error is None else 1.96 * error}


READERS = {"loss": read_losses, "position": read_positions, "passkey": read_retrieval, "multikey": read_retrieval,
           "copy": read_copies, "context": read_context}

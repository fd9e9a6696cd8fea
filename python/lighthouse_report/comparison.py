"""Arms against the baseline, paired by seed: runs of one seed start from the same weights and see the same batches."""

import math
import statistics
from dataclasses import dataclass

from .arms import check_corpus
from .student import Estimate, estimate


SHORTEST = 1e-9  # seconds that a time can be compared with


@dataclass(frozen=True)
class Measure:
    """Where final losses come from: the same for all runs of a page."""
    name: str
    evaluated: bool

    def loss(self, run):
        """Dense validation loss of the final weights, nats per token; None while there is none."""
        if not run.complete:
            return None
        if self.evaluated:
            return run.evaluation.losses["dense"].loss
        return run.last.get("validation_loss")

    def leaning(self, run):
        """Loss with Lighthouse attention minus dense loss of the final weights; None where one is not known, or of a dense
        run."""
        if not run.complete or run.lighthouse_steps == 0:
            return None
        losses = run.evaluation.losses
        if self.evaluated and "lighthouse" in losses and losses["lighthouse"].measured_on == losses["dense"].measured_on:
            return losses["lighthouse"].loss - losses["dense"].loss
        if "validation_loss" in run.last and "validation_loss_lighthouse" in run.last:
            return run.last["validation_loss_lighthouse"] - run.last["validation_loss"]
        return None


@dataclass(frozen=True)
class Pair:
    seed: str
    base: object
    run: object
    difference: float                # final dense validation loss of the run minus that of its partner
    over_sequences: Estimate | None  # the same with its interval over the sequences of the evaluation


@dataclass(frozen=True)
class Comparison:
    arm: object
    pairs: list              # of complete runs
    waiting: int             # pairs that are not complete yet
    difference: Estimate | None
    margin: float | None     # the largest difference that is not inferior, in nats per token

    @property
    def verdict(self):
        if self.difference is None:
            return "no complete pair yet" if self.waiting else "no common seed"
        if self.difference.low is None:
            return "no verdict"
        if self.difference.high < 0:
            return "superior"
        if self.difference.high <= self.margin:
            return "non-inferior"
        return "inferior" if self.difference.low > self.margin else "not shown"


def choose_measure(arms):
    """Final losses of eval.json where every complete run has one of its last step, over the same sequences."""
    complete = [run for arm in arms for run in arm.runs if run.complete]
    dense = [run.evaluation.losses.get("dense") for run in complete]
    same_weights = all(loss is not None and loss.step == run.last["step"] for run, loss in zip(complete, dense))
    if complete and same_weights and len({loss.measured_on[1:] for loss in dense}) == 1:
        return Measure(f"eval.json, {len(dense[0].sequences)} sequences of {dense[0].seq_len:,} tokens", True)
    return Measure("last validation of each run", False)


def partners(base, arm):
    """[(run of the baseline, run of the arm)] of equal seeds. Raises where their corpora differ."""
    by_seed = {run.seeds: run for run in base.runs}
    pairs = [(by_seed[run.seeds], run) for run in arm.runs if run.seeds in by_seed]
    for first, second in pairs:
        check_corpus(first, second)
    return pairs


def compare(base, arm, measure, margin_percent):
    both = partners(base, arm)
    pairs = [Pair(run.seed_name, first, run, measure.loss(run) - measure.loss(first), over_sequences(first, run, measure))
             for first, run in both if measure.loss(first) is not None and measure.loss(run) is not None]
    if not pairs:
        return Comparison(arm, [], len(both), None, None)
    base_loss = statistics.fmean([measure.loss(pair.base) for pair in pairs])
    return Comparison(arm, pairs, len(both) - len(pairs), estimate([pair.difference for pair in pairs]),
                      margin_percent / 100 * base_loss)


def over_sequences(base, run, measure):
    if not measure.evaluated:
        return None
    first, second = base.evaluation.losses["dense"].sequences, run.evaluation.losses["dense"].sequences
    differences = [second[index] - first[index] for index in second
                   if second[index] is not None and first[index] is not None]
    return estimate(differences) if len(differences) > 1 else None


def clock_at_loss(run, target, clock):
    """Seconds by "time" or "train_seconds" at the first validation at or below a dense loss; infinite if there is none,
    None if the run did not write them."""
    reached = next((record for record in run.validations if record["validation_loss"] <= target), {clock: math.inf})
    return reached.get(clock)


def ratio(pairs, clock):
    """Estimate of the time of a run over that of its partner; None where one does not know it or took none, or without pairs."""
    values = [(pair.run.last.get(clock), pair.base.last.get(clock)) for pair in pairs]
    if not values or any(run is None or base is None or base < SHORTEST for run, base in values):
        return None
    return estimate([run / base for run, base in values])

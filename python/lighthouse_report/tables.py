"""The tables of the page, and the sentences under its title."""

import math
import statistics

from . import series
from .arms import differing_keys, shown
from .comparison import clock_at_loss, ratio
from .results import beside
from .series import mean_of
from .student import estimate
from .vega import table

NONE = "–"
CLOCKS = ("train_seconds", "time")


def signed(value, digits=4):
    return f"{value:+.{digits}f}".replace("-", "−")


def plain(value, digits=4):
    return f"{value:.{digits}f}"


def with_interval(mean, write=plain, digits=4):
    """"1.2345 [1.2, 1.3]" of an Estimate, or of None."""
    if mean is None:
        return NONE
    return write(mean.mean, digits) + ("" if mean.low is None else f" [{write(mean.low, digits)}, {write(mean.high, digits)}]")


def p_text(p):
    return NONE if p is None else "< 0.0001" if p < 0.0001 else plain(p)


def duration(seconds):
    """"12.3 s", "12:34", "1:02:03"; None is not known, infinity never was."""
    if seconds is None or seconds == math.inf:
        return NONE if seconds is None else "not reached"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02}" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def summary(base, comparisons):
    """A sentence for each arm."""
    lines = []
    for comparison in comparisons:
        difference, waiting = comparison.difference, f" ({comparison.waiting} in progress)" if comparison.waiting else ""
        text = f"{comparison.arm.name} − {base.name}: "
        if difference is None:
            text += comparison.verdict + waiting
        else:
            seeds = "1 seed" if difference.count == 1 else f"{difference.count} seeds"
            text += f"{with_interval(difference, signed)} nats per token, {seeds}{waiting}: {comparison.verdict}"
        spent = ratio(comparison.pairs, "train_seconds") or ratio(comparison.pairs, "time")
        lines.append(text + (f"; {spent.mean:.2f} of its time" if spent else ""))
    return lines


def losses(arms, comparisons, measure, margin_percent):
    by_arm = {comparison.arm.name: comparison for comparison in comparisons}
    contexts, notes = beside(arms, "context")
    rows = [loss_row(arm, by_arm.get(arm.name), measure, contexts.get(arm.name, [])) for arm in arms]
    head = [("arm", 250), ("done", 60), ("final dense validation loss", 200), ("minus baseline, by seed", 210), ("relative", 75),
            ("p", 70), ("verdict", 160), ("leaning", 80), ("far context", 85)]
    return table(
        "Final loss, nats per token, with 95 % intervals over seeds",
        [f"Losses: {measure.name}. Superior: the upper end of the interval is below 0; non-inferior: it is at most "
         f"+{margin_percent:g} % of the baseline's loss. p: two-sided, paired t test.",
         "Leaning: loss with Lighthouse attention minus dense loss of the final weights; below 0 the model still leans on stage "
         "one. Far context: loss with the last tokens only minus loss with all.",
         *(f"Far context: {note}." for note in notes + context_lengths(contexts))], head, rows)


def context_lengths(contexts):
    """What to say where "the last tokens" are not equally many."""
    lengths = sorted({run.evaluation.context["length"] for runs in contexts.values() for run in runs})
    return [f"the last tokens are {' or '.join(f'{length:,}' for length in lengths)}, by arm"] if len(lengths) > 1 else []


def loss_row(arm, comparison, measure, with_context):
    final = [loss for loss in map(measure.loss, arm.runs) if loss is not None]
    row = [arm.name, f"{len(final)} of {len(arm.runs)}", with_interval(estimate(final)) if final else NONE]
    if comparison and comparison.difference:
        difference = comparison.difference
        base = statistics.fmean([measure.loss(pair.base) for pair in comparison.pairs])
        relative = signed(100 * difference.mean / base, 2) + " %" if base > 0 else NONE
        row += [with_interval(difference, signed), relative, p_text(difference.p)]
    else:
        row += [NONE, NONE, NONE]
    leaning = [value for value in (measure.leaning(run) for run in arm.runs) if value is not None]
    context = mean_of(run.evaluation.context["difference"] for run in with_context)
    return row + [comparison.verdict if comparison else "baseline", signed(statistics.fmean(leaning)) if leaning else NONE,
                  NONE if context is None else signed(context)]


def times(arms, comparisons):
    pairs = {comparison.arm.name: comparison.pairs for comparison in comparisons}
    rows = [[arm.name, *time_cells(arm, pairs.get(arm.name, [])), stage_median(arm, 1), stage_median(arm, 2), peak_memory(arm),
             recovered(arm), spikes(arm)] for arm in arms]
    head = [("arm", 250), ("Total time\nsteps", 70), ("over baseline", 120), ("all", 70), ("over baseline", 120),
            ("Time to the baseline's loss\nsteps", 95), ("all", 95), ("Tokens per second\nstage one", 85), ("stage two", 85),
            ("peak GiB", 70), ("recovered", 75), ("spikes", 55)]
    return table(
        "Time, speed and memory",
        ["Means of complete runs. Steps: without evaluation and saving; all: with them. Over baseline: paired by seed, with 95 % "
         "interval. Time to the dense loss of the baseline's last validation, by seed.",
         "Tokens per second: median of the steps. Peak: of tensors on the device. Recovered: tokens from the switch until the "
         "dense validation loss is below the Lighthouse loss at the switch."], head, rows)


def time_cells(arm, pairs):
    cells = []
    for clock in CLOCKS:
        cells += [duration(mean_of(run.last.get(clock) for run in arm.runs if run.complete)),
                  with_interval(ratio(pairs, clock), digits=2)]
    for clock in CLOCKS:
        cells.append(duration(mean_of(clock_at_loss(pair.run, pair.base.validations[-1]["validation_loss"], clock)
                                      for pair in pairs if pair.base.validations)))
    return cells


def stage_median(arm, stage):
    values = [record["tokens_per_s"] for run in arm.runs for record in run.records
              if record["stage"] == stage and "tokens_per_s" in record]
    return f"{statistics.median(values):,.0f}" if values else NONE


def peak_memory(arm):
    values = [record["peak_memory"] for run in arm.runs for record in run.records if "peak_memory" in record]
    return plain(max(values) / 2**30, 1) if values else NONE


def recovered(arm):
    """Millions of tokens, the mean of the seeds once all have recovered."""
    if not arm.switches:
        return NONE
    found = [(series.recovery(run), series.switch_point(run)) for run in arm.runs]
    after = mean_of(at and at["tokens"] - switch["tokens"] for at, switch in found)
    return "not yet" if after is None else f"{after / 1e6:.3g} M"


def spikes(arm):
    return str(sum(bool(record["spike"]) for run in arm.runs for record in run.records))


def runs(arms):
    rows = []
    for arm in arms:
        for run in arm.runs:
            loss = plain(run.validations[-1]["validation_loss"]) if run.validations else NONE
            step = f"{run.last['step']:,} of {run.steps:,}" + ("" if run.complete else ", in progress")
            rows.append([arm.name, str(run.path), run.seed_name, step, loss,
                         *(duration(run.last.get(clock)) for clock in CLOCKS), run.fingerprint[:12], run.machine])
    head = [("arm", 250), ("run folder", 240), ("seed", 50), ("step", 165), ("dense loss", 85), ("Time\nsteps", 70), ("all", 70),
            ("corpus", 130), ("machine", 130)]
    return table("Runs", "Corpus: the first 12 digits of its fingerprint; unknown without a checkpoint and results of eval. "
                 "Machine: that of the newest checkpoint.", head, rows)


def changes(arms):
    """None where no run has any."""
    rows = [[arm.name, str(run.path), f"{change['step']:,}", change["key"], change["before"], change["after"]]
            for arm in arms for run in arm.runs for change in run.changes]
    head = [("arm", 250), ("run folder", 240), ("after step", 85), ("key", 250), ("before", 185), ("then", 185)]
    return table("Changes on the way", "By lighthouse train --change; other tables have the values of the end.", head, rows) if rows else None


def configurations(arms):
    """Keys that differ between arms, with the arms that have each value; None where there are no such keys."""
    all_settings = [arm.settings for arm in arms]
    rows = []
    for key in differing_keys(all_settings):
        names_of_value = {}
        for arm, own in zip(arms, all_settings):
            if key in own:
                names_of_value.setdefault(shown(own[key]), []).append(arm.name)
        for index, (value, names) in enumerate(names_of_value.items()):
            rows.append(["" if index else key, value, ", ".join(names)])
    if not rows:
        return None
    return table("Configuration: what differs between the arms",
                 "Without seeds, places of files, how a run is logged, and, for dense arms, [attention].",
                 [("key", 250), ("value", 240), ("arms", 700)], rows)

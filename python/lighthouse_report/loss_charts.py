"""Losses against tokens and time. Each function returns a piece of a Vega-Lite specification, or None where no run has the
data."""

from . import series
from .axes import BAND, LOSS, TOKENS, log_axis, switch_rules
from .series import arm_rows, binned_points, source_points, validation_points
from .vega import chart, colour_of_arms, curves, points, quantity, style_of_attention

DENSE = "dense attention"
STAGE_ONE = "stage one (looks ahead)"
LIGHTHOUSE = "Lighthouse (looks ahead)"
MOST_SOURCES = 8  # of a mixture, that are drawn
UNITS = (("hours", 3600), ("minutes", 60), ("seconds", 1))


def validation_by_tokens(arms):
    rows = validation_rows(arms, "tokens")
    return rows and validation("Dense validation loss against tokens", arms, rows, TOKENS)


def validation_by_time(arms):
    """By the time of steps alone, where all runs know it, else by all time."""
    clock = "train_seconds" if all("train_seconds" in run.last for arm in arms for run in arm.runs) else "time"
    rows = validation_rows(arms, clock)
    if not rows:
        return None
    longest = max(row[clock] for row in rows)
    unit, seconds = next((unit for unit in UNITS if longest >= 2 * unit[1]), UNITS[-1])
    evaluation = "excluded" if clock == "train_seconds" else "included"
    x = quantity(clock, f"{unit}, evaluation {evaluation}", zero=True, tickCount=6)
    rows = [{**row, clock: row[clock] / seconds} for row in rows]
    return validation("Dense validation loss against time", arms, rows, x, seconds)


def validation_by_source(arms):
    """A chart for each corpus of a mixture, at most MOST_SOURCES of them."""
    names = dict.fromkeys(name for arm in arms for run in arm.runs for record in run.records for name in record["sources"])
    charts = []
    for name in list(names)[:MOST_SOURCES]:
        points_of_arms = [(arm, [found for run in arm.runs if (found := source_points(run, name))]) for arm in arms]
        rows = [row for arm, found in points_of_arms if found for row in arm_rows(arm.name, found)]
        charts.append(validation(f"Dense validation loss on {name}", arms, rows, TOKENS))
    return charts


def validation_rows(arms, clock):
    rows = [row for arm in arms for row in arm_rows(arm.name, [validation_points(run) for run in arm.runs])]
    return [row for row in rows if row[clock] is not None]


def validation(title, arms, rows, x, unit=1):
    lines = curves(rows, x=x, y=log_axis(rows, LOSS), color=colour_of_arms(arms))
    return chart(title, f"{BAND}; dotted: switch to dense attention", [switch_rules(arms, x, unit), lines])


def training(arms):
    """Losses of training; those of stage one look ahead and are drawn in another style."""
    rows = []
    for arm in arms:
        for row in arm_rows(arm.name, [binned_points(run, "loss") for run in arm.runs]):
            rows.append({**row, "attention": STAGE_ONE if row["stage"] == 1 else DENSE})
    if not rows:
        return None
    lines = curves(rows, "attention", band=False, x=TOKENS, y=log_axis(rows, LOSS), color=colour_of_arms(arms),
                   **style_of_attention(DENSE, STAGE_ONE))
    return chart("Training loss", f"Means of {series.steps_of_bin(arms)} and of the seeds. Losses of stage one look ahead: not "
                 "comparable with dense ones", [switch_rules(arms, TOKENS), lines])


def switching(arms):
    """Both validation losses of the arms that switch, and where the dense one is below the Lighthouse loss at the switch."""
    switching_arms = [arm for arm in arms if arm.switches]
    rows = []
    for arm in switching_arms:
        for field, attention in (("validation_loss", DENSE), ("validation_loss_lighthouse", LIGHTHOUSE)):
            arm_points = [validation_points(run, field) for run in arm.runs]
            rows += [{**row, "attention": attention} for row in arm_rows(arm.name, arm_points)]
    if not rows:
        return None
    y, colour = log_axis(rows, LOSS), colour_of_arms(arms, switching_arms)
    lines = curves(rows, "attention", band=False, x=TOKENS, y=y, color=colour, **style_of_attention(DENSE, LIGHTHOUSE))
    diamonds = points(recoveries(switching_arms), {"shape": "diamond", "size": 70}, x=TOKENS, y=y, color=colour)
    return chart("Switch and recovery: validation of the two-stage arms",
                 "Diamond, one a seed: first dense validation below the Lighthouse loss at the switch",
                 [switch_rules(arms, TOKENS), lines, diamonds])


def recoveries(arms):
    rows = []
    for arm in arms:
        for run in arm.runs:
            found = series.recovery(run)
            if found:
                rows.append({"arm": arm.name, "event": "recovered", "seed": run.seed_name, "tokens": found["tokens"],
                             "value": found["validation_loss"], "loss before the switch": series.pre_switch_loss(run)})
    return rows

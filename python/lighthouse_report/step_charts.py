"""Speed, memory and gradient norm of the steps; None where no arm has them in all its runs."""

import statistics

from . import series
from .axes import BAND, LARGE, TOKENS, from_zero, log_axis, switch_rules
from .vega import chart, colour_of_arms, curves, points


def speed(arms):
    rows = step_rows(arms, "tokens_per_s", statistics.median)
    return rows and step_chart("Speed of training steps", BAND, arms, rows, from_zero(rows, "tokens per second", **LARGE))


def memory(arms):
    rows = [{**row, **{key: row[key] / 2**30 for key in ("value", "low", "high")}} for row in step_rows(arms, "peak_memory", max)]
    return rows and step_chart("Peak memory of the device", f"Bytes in tensors. {BAND}", arms, rows, from_zero(rows, "GiB"))


def gradient_norm(arms):
    rows = [row for row in step_rows(arms, "grad_norm", max) if row["low"] > 0]
    if not rows:
        return None
    y, found = log_axis(rows, "norm"), spikes(arms)
    triangles = points(found, {"shape": "triangle-down", "size": 70}, x=TOKENS, y=y, color=colour_of_arms(arms))
    return step_chart("Gradient norm before clipping", f"Largest of {series.steps_of_bin(arms)}. {BAND}"
                      + ("; triangles: logged spikes" if found else ""), arms, rows, y, [triangles])


def spikes(arms):
    """The steps that stood out to the run that logged them."""
    return [{"arm": arm.name, "seed": run.seed_name, "step": record["step"], "tokens": record["tokens"],
             "value": record["grad_norm"], "spike": record["spike"]}
            for arm in arms for run in arm.runs for record in run.records
            if record["spike"] and record.get("grad_norm", 0) > 0]


def step_rows(arms, field, reduce):
    """Rows of binned steps, of the arms whose runs all have the field."""
    rows = []
    for arm in arms:
        if all(any(field in record for record in run.records) for run in arm.runs):
            rows += series.arm_rows(arm.name, [series.binned_points(run, field, reduce) for run in arm.runs])
    return rows


def step_chart(title, subtitle, arms, rows, y, more=()):
    lines = curves(rows, "stage", x=TOKENS, y=y, color=colour_of_arms(arms))
    return chart(title, subtitle, [switch_rules(arms, TOKENS), lines, *more])

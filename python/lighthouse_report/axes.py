"""Axes that several charts share."""

import math

from . import series
from .vega import colour_of_arms, marks, quantity

BAND = "Line: mean of the seeds, band: lowest to highest seed"
LOSS = "nats per token"
LARGE = {"format": "~s", "labelExpr": "datum.value === 0 ? '0' : datum.label"}  # 0, 5M, 10M
TOKENS = quantity("tokens", "training tokens", zero=True, tickCount=6, **LARGE)
NUM_TICKS = 9  # of a logarithmic axis, at most


def from_zero(rows, title, **axis):
    return quantity("value", title, domain=[0, 1.08 * max(row["high"] for row in rows)], tickCount=6, **axis)


def log_axis(rows, title):
    """For values that begin far from where they end, such as losses."""
    low = max(1e-4, 0.98 * min(row["low"] for row in rows))
    high = max(1.02 * low, 1.02 * max(row["high"] for row in rows))
    return quantity("value", title, log=10, domain=[low, high], format=".3~g", values=log_ticks(low, high))


def log_ticks(low, high):
    """Round values: equally far apart where few of them will do, else 1, 2, 5, 10, …, or powers of ten, of
    which some are left out where there are many."""
    choices = []
    if high < 10 * low:
        choices = [multiples(step, low, high) for step in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1) if high < 1000 * step]
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    for digits, stride in (((1, 2, 5), 1), ((1,), 1), ((1,), math.ceil((last - first + 1) / NUM_TICKS))):
        ticks = [digit * 10.0**power for power in range(first, last + 1, stride) for digit in digits]
        choices.append([tick for tick in ticks if low <= tick <= high])
    return next((ticks for ticks in choices if len(ticks) <= NUM_TICKS), choices[-1])


def multiples(step, low, high):
    return [round(step * n, 2) for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def switch_rules(arms, x, unit=1):
    """Dotted lines where arms go over to dense attention, their seeds averaged. x: a channel of tokens, or of seconds in
    units of `unit`."""
    field = x["field"]
    rows = []
    for arm in arms:
        at = series.mean_of(record.get(field) for record in map(series.switch_point, arm.runs) if record)
        if at is not None:
            rows.append({"arm": arm.name, field: at / unit})
    colour = {key: value for key, value in colour_of_arms(arms).items() if key != "legend"}  # that is of the curves
    return marks(rows, {"type": "rule", "strokeDash": [2, 3], "strokeWidth": 1.2}, x=x, color=colour)

"""Means with Student's t intervals over independent values: seeds, or the sequences of one comparison."""

import functools
import math
import statistics
from dataclasses import dataclass

CONFIDENCE = 0.95
PANELS = 1000  # of Simpson's rule: even; the error is below 1e-10


@dataclass(frozen=True)
class Estimate:
    """A mean of `count` values; its interval and the two-sided p of "the mean is 0" need two of them."""
    mean: float
    count: int
    low: float | None = None
    high: float | None = None
    p: float | None = None


def estimate(values):
    mean, count = statistics.fmean(values), len(values)
    if count < 2:
        return Estimate(mean, count)
    error = statistics.stdev(values) / math.sqrt(count)
    half = error * quantile(CONFIDENCE, count - 1)
    t = abs(mean) / error if error > 0 else math.inf if mean else 0.0
    return Estimate(mean, count, mean - half, mean + half, 1 - probability(t, count - 1))


def probability(t, freedom):
    """P(|T| <= t) of Student's t. With T = sqrt(freedom) tan(angle) its density is that of cos(angle)^(freedom - 1)."""
    whole = math.sqrt(math.pi) * math.exp(math.lgamma(freedom / 2) - math.lgamma((freedom + 1) / 2))  # from -pi/2 to pi/2
    step = math.atan(t / math.sqrt(freedom)) / PANELS
    weighted = (math.cos(panel * step) ** (freedom - 1) * (1 if panel in (0, PANELS) else 4 if panel % 2 else 2)
                for panel in range(PANELS + 1))
    return min(1.0, 2 * math.fsum(weighted) * step / 3 / whole)


@functools.cache
def quantile(confidence, freedom):
    """The t with P(|T| <= t) = confidence."""
    low, high = 0.0, math.pi / 2  # of the angle
    for _ in range(50):
        middle = (low + high) / 2
        if probability(math.sqrt(freedom) * math.tan(middle), freedom) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(freedom) * math.tan(low)

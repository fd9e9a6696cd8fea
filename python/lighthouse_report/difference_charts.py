"""Arms against the baseline, seed by seed; None where there is nothing to compare."""

from collections import defaultdict

from .axes import LOSS, TOKENS
from .comparison import partners
from .student import estimate
from .vega import HEIGHT, INK, MUTED, chart, colour_of_arms, curves, marks, points, quantity

SEED_HEIGHT = 9  # pixels between the seeds of an arm
ZERO = {"type": "rule", "color": INK}


def by_tokens(comparisons, arms):
    """Differences at equal tokens from the switch on, with the t interval over seeds."""
    compared = [comparison.arm for comparison in comparisons]
    seeds, means = [], []
    for arm in compared:
        at = defaultdict(list)
        for base, run in partners(arms[0], arm):
            for tokens, difference in differences(base, run):
                at[tokens].append(difference)
                seeds.append({"arm": arm.name, "line": f"seed {run.seed_name}", "tokens": tokens, "value": difference})
        means += [{"arm": arm.name, "line": "mean", "tokens": tokens, **parts(estimate(at[tokens]))} for tokens in sorted(at)]
    if not means:
        return None
    late = sorted(means, key=lambda row: row["tokens"])[len(means) // 2:]  # the first steps after the switch are far off
    reach = 1.3 * max([abs(row[key]) for row in late for key in ("low", "high")] + [0.004])
    x = {**TOKENS, "scale": {"zero": False}}
    y = quantity("value", f"difference, {LOSS}", domain=[-reach, reach], format="+.3~g", tickCount=7)
    lines = curves(means + seeds, clip=True, x=x, y=y, color=colour_of_arms(arms, compared))
    return chart(f"Dense validation loss minus that of {arms[0].name}, by seed and tokens",
                 "From the switch on. Thick: mean, band: 95 % interval (Student's t over seeds), thin: seeds",
                 [marks([{"value": 0}], ZERO, y=y), lines])


def differences(base, run):
    """(tokens, dense validation loss of the run minus that of its partner) where both were validated, in stage two."""
    theirs = {record["step"]: record["validation_loss"] for record in base.validations}
    for record in run.validations:
        if record["step"] in theirs and record["stage"] == 2:
            yield record["tokens"], record["validation_loss"] - theirs[record["step"]]


def final(comparisons, arms, margin_percent):
    """The decisive figure: final differences of all pairs, their mean and interval, zero and the margin."""
    complete = [comparison for comparison in comparisons if comparison.pairs]
    if not complete:
        return None
    means = [{"arm": comparison.arm.name, "text": f"{comparison.arm.name}: {comparison.verdict}", "p": comparison.difference.p,
              **parts(comparison.difference)} for comparison in complete]
    seeds = [row for comparison in complete for row in seed_rows(comparison)]
    margin = max(comparison.margin for comparison in complete)
    ends = [abs(row[key]) for row in means + seeds for key in ("value", "low", "high") if key in row]
    reach = 1.15 * max([margin, *ends])
    x = quantity("value", f"difference, {LOSS} (left of 0: lower than {arms[0].name})", domain=[-reach, reach], format="+.3~g",
                 tickCount=7)
    y = {"field": "arm", "type": "nominal", "sort": [row["arm"] for row in means], "axis": None}
    colour = colour_of_arms(arms, [comparison.arm for comparison in comparisons])
    place = {"x": x, "y": y, "color": colour}
    span = {**place, "x": {**x, "field": "low"}, "x2": {"field": "high"}}
    below = {"yOffset": {"expr": "datum.offset"}}
    with_lines = [row for row in seeds if "low" in row]
    layers = [
        marks([{"value": 0}], ZERO, x=x),
        *margin_line(margin, margin_percent, x),
        marks(with_lines, {"type": "rule", "opacity": 0.4, **below}, **span),
        points(seeds, {"filled": False, "size": 40, **below}, **place),
        marks(means, {"type": "rule", "strokeWidth": 3}, **span),
        points(means, {"shape": "diamond", "size": 130}, **place),
        marks(means, {"type": "text", "align": "left", "dx": 4, "yOffset": -16, "color": INK}, x={"value": 0}, y=y,
              text={"field": "text"}),
    ]
    return chart(f"Final dense validation loss minus that of {arms[0].name}, by seed",
                 "Diamond: mean, 95 % interval (Student's t over seeds); circles: seeds"
                 + (", lines: 95 % over sequences" if with_lines else ""), layers,
                 max(HEIGHT, len(means) * round(50 + max(row["offset"] for row in seeds))))


def seed_rows(comparison):
    """A row for each pair, `offset` pixels below the mean of the arm."""
    return [{"arm": comparison.arm.name, "seed": pair.seed, "offset": SEED_HEIGHT * (index + 1.5),
             **(parts(pair.over_sequences) if pair.over_sequences else {}), "value": pair.difference}
            for index, pair in enumerate(comparison.pairs)]


def margin_line(margin, percent, x):
    row = {"value": margin, "text": f"margin +{percent:g} %"}
    return [marks([row], {**ZERO, "strokeDash": [4, 3]}, x=x),
            marks([row], {"type": "text", "align": "left", "dx": 4, "color": MUTED}, x=x, y={"value": 8}, text={"field": "text"})]


def parts(mean):
    """An Estimate as parts of a row; without an interval it is a point."""
    return {"value": mean.mean, "low": mean.mean if mean.low is None else mean.low,
            "high": mean.mean if mean.high is None else mean.high, "count": mean.count}

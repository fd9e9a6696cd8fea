"""Points of curves: validations and binned steps of each run, and what the runs of an arm make together."""

import statistics
from collections import defaultdict

NUM_BINS = 150  # of a curve over all steps: a page stays small, and noise of single batches averages out
CLOCKS = ("tokens", "train_seconds", "time")


def validation_points(run, field="validation_loss"):
    """step -> point"""
    return {record["step"]: point(record, record[field]) for record in run.records if field in record}


def source_points(run, name):
    """The same of one corpus of a mixture."""
    return {record["step"]: point(record, record["sources"][name]) for record in run.records if name in record["sources"]}


def binned_points(run, field, reduce=statistics.fmean):
    """(bin, stage) -> point; bins are of equal numbers of steps, the same for all runs of an arm."""
    groups = defaultdict(list)
    for record in run.records:
        if field in record:
            groups[(record["step"] - 1) // bin_width(run), record["stage"]].append(record)
    return {key: point(group[-1], reduce([record[field] for record in group])) for key, group in groups.items()}


def bin_width(run):
    """Steps of a bin."""
    return -(-run.steps // NUM_BINS)


def steps_of_bin(arms):
    """In words."""
    width = max(bin_width(run) for arm in arms for run in arm.runs)
    return "single steps" if width == 1 else f"{width} steps"


def point(record, value):
    return {"value": value, "stage": record["stage"], **{clock: record.get(clock) for clock in CLOCKS}}


def arm_rows(name, runs_points):
    """Rows of a chart: where all runs have a point, their mean, lowest and highest ("line": "mean"); a run that is further
    than others goes on as a line of its own."""
    common = sorted(set.intersection(*map(set, runs_points)))
    rows = [{"arm": name, "line": "mean", **together([points[key] for points in runs_points])} for key in common]
    for index, points in enumerate(runs_points):
        ahead = [key for key in sorted(points) if not common or key > common[-1]]
        for key in common[-1:] + ahead if ahead else []:
            rows.append({"arm": name, "line": f"run {index + 1}", **together([points[key]])})
    return rows


def together(points):
    """The mean point with the lowest and the highest value; of one point its own half width, where it has one."""
    row, values = dict(points[0]), [each["value"] for each in points]
    for key in ("value", *CLOCKS):
        if key in row:
            row[key] = mean_of(each[key] for each in points)
    half = row.pop("half_width", None) or 0
    row["low"], row["high"] = (values[0] - half, values[0] + half) if len(points) == 1 else (min(values), max(values))
    return row


def mean_of(values):
    """None where a value is missing, or all are."""
    values = list(values)
    return statistics.fmean(values) if values and None not in values else None


def switch_point(run):
    """The last record of stage one of a run that has switched; None before."""
    stage_one = [record for record in run.records if record["stage"] == 1]
    return stage_one[-1] if stage_one and run.last["stage"] == 2 else None


def pre_switch_loss(run):
    """Validation loss with Lighthouse attention at the switch; None without."""
    return (switch_point(run) or {}).get("validation_loss_lighthouse")


def recovery(run):
    """The first validation of stage two whose dense loss is below the Lighthouse loss at the switch; None so far."""
    level = pre_switch_loss(run)
    if level is None:
        return None
    return next((record for record in run.validations if record["stage"] == 2 and record["validation_loss"] < level), None)

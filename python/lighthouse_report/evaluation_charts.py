"""Charts of what `lighthouse eval` found; None where no run has the task."""

from collections import defaultdict

from .axes import LOSS
from .results import beside
from .series import arm_rows
from .vega import INK, MUTED, PAGE_WIDTH, chart, colour_of_arms, curves, marks, points, quantity

MAPS = 3  # in a row
THOUSANDS = "datum.value % 1024 ? datum.label : datum.value / 1024 + 'K'"  # 512, 4K, 32K
SEEDS = "Line: mean of the seeds, band: lowest to highest, or 95 % of one seed"


def by_position(arms):
    def found(run):
        return {(bucket["begin"], bucket["end"]): {**bucket, "x": (max(bucket["begin"], 1) * bucket["end"]) ** 0.5}
                for bucket in run.evaluation.values("position", "dense")}
    runs, notes = beside(arms, "position", "dense")
    rows = evaluated_rows(runs, found)
    return rows and curve("Loss by position in the sequence", [f"Dense attention. {SEEDS}", *notes], rows,
                          "position of the input token", LOSS, arms)


def by_distance(arms):
    runs, notes = beside(arms, "copy")
    rows = evaluated_rows(runs, lambda run: {cell["distance"]: {**cell, "x": cell["distance"]} for cell in run.evaluation.copies})
    chance = next((run.evaluation.copy_chance for of_arm in runs.values() for run in of_arm if run.evaluation.copy_chance), None)
    return rows and curve("Copying a random hex string over a distance", [f"0 is perfect; dashed: chance. {SEEDS}", *notes], rows,
                          "distance, tokens", "bits per byte", arms, chance)


def evaluated_rows(runs, points_of):
    """Rows of each arm over those of its runs that beside() gives."""
    rows = []
    for name, of_arm in runs.items():
        evaluated = [found for found in map(points_of, of_arm) if found]
        if evaluated:
            rows += [row for row in arm_rows(name, evaluated) if row["line"] == "mean"]
    return rows


def curve(title, subtitle, rows, x_title, y_title, arms, chance=None):
    x = quantity("x", x_title, log=2, format=",", tickCount=8)
    y = quantity("value", y_title, zero=chance is not None, format=".3~g", tickCount=6)
    channels = {"x": x, "y": y, "color": colour_of_arms(arms)}
    layers = [curves(rows, **channels), points(rows, {"size": 32}, **channels)]
    if chance is not None:
        layers.insert(0, marks([{"value": chance}], {"type": "rule", "color": MUTED, "strokeDash": [4, 3]}, y=y))
    return chart(title, subtitle, layers)


def retrieval(arms, task, title):
    """Accuracy of each arm by length and depth, all seeds together."""
    runs, notes = beside(arms, task)
    rows = [row for name, of_arm in runs.items() for row in accuracy_rows(name, of_arm, task)]
    if not rows:
        return None
    names = list(dict.fromkeys(row["arm"] for row in rows))
    in_row = min(MAPS, len(names)) * len({row["length"] for row in rows})
    cell_width = max(27, min(54, (PAGE_WIDTH - 200) // in_row))  # at least that of "100%"
    axes = {"x": {"field": "length", "type": "ordinal", "title": "context, tokens",
                  "axis": {"labelAngle": 0, "labelExpr": THOUSANDS}},
            "y": {"field": "depth", "type": "ordinal", "title": "depth of the key", "axis": {"format": ".0%"}}}
    colour = {"field": "accuracy", "type": "quantitative", "scale": {"domain": [0, 1], "scheme": "blues"},
              "legend": {"format": ".0%", "title": "right", "gradientLength": 140, "orient": "right"}}
    number = {"text": {"field": "accuracy", "type": "quantitative", "format": ".0%"},
              "color": {"condition": {"test": "datum.accuracy > 0.55", "value": "white"}, "value": INK}}
    return {"title": {"text": title, "subtitle": ["Share of right answers, all seeds together; 10 % is chance", *notes]},
            "data": {"values": rows}, "columns": MAPS,
            "facet": {"field": "arm", "type": "nominal", "sort": names, "title": None,
                      "header": {"labelFontSize": 12, "labelAnchor": "start"}},
            "spec": {"width": {"step": cell_width}, "height": {"step": 22}, "encoding": axes,
                     "layer": [{"mark": {"type": "rect", "tooltip": {"content": "data"}}, "encoding": {"color": colour}},
                               {"mark": {"type": "text", "fontSize": 10}, "encoding": number}]}}


def accuracy_rows(name, runs, task):
    counts = defaultdict(lambda: [0, 0])
    for run in runs:
        for cell in run.evaluation.values(task):
            counts[cell["length"], cell["depth"]][0] += cell["correct"]
            counts[cell["length"], cell["depth"]][1] += cell["trials"]
    return [{"arm": name, "length": length, "depth": depth, "accuracy": right / trials, "right": right, "trials": trials}
            for (length, depth), (right, trials) in sorted(counts.items())]

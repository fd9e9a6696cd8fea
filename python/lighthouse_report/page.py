"""The page: one Vega-Lite specification of all runs."""

from importlib import metadata

from . import difference_charts, evaluation_charts, loss_charts, step_charts, tables
from .comparison import choose_measure, compare
from .text import drawable
from .vega import CONFIG, GAP, MUTED

OWN_SCALES = {"scale": {"color": "independent", "strokeDash": "independent", "opacity": "independent"}}  # and so legends
MENU = {"export": True, "source": False, "compiled": False, "editor": False}


def specification(arms, title, margin_percent):
    measure = choose_measure(arms)
    comparisons = [compare(arms[0], arm, measure, margin_percent) for arm in arms[1:]]
    pieces = [
        *in_twos(loss_charts.validation_by_tokens(arms), loss_charts.validation_by_time(arms)),
        *in_twos(difference_charts.final(comparisons, arms, margin_percent), difference_charts.by_tokens(comparisons, arms)),
        tables.losses(arms, comparisons, measure, margin_percent),
        tables.times(arms, comparisons),
        *in_twos(loss_charts.training(arms), loss_charts.switching(arms), evaluation_charts.by_position(arms),
                 evaluation_charts.by_distance(arms)),
        *in_twos(*loss_charts.validation_by_source(arms)),
        evaluation_charts.retrieval(arms, "passkey", "Passkey: a digit hidden in text"),
        evaluation_charts.retrieval(arms, "multikey", "Multikey: the digit of one key of several"),
        *in_twos(step_charts.speed(arms), step_charts.memory(arms), step_charts.gradient_norm(arms)),
        tables.runs(arms),
        tables.configurations(arms),
        tables.changes(arms),
    ]
    head = {"text": title, "subtitle": [*tables.summary(arms[0], comparisons), versions()], "fontSize": 22,
            "subtitleFontSize": 13, "subtitleColor": MUTED, "offset": 24}
    whole = {"$schema": "https://vega.github.io/schema/vega-lite/v6.json", "config": CONFIG, "title": head,
             "usermeta": {"embedOptions": {"actions": MENU}},
             "vconcat": [piece for piece in pieces if piece], "spacing": 46, "resolve": OWN_SCALES}
    return drawable(whole)


def in_twos(*charts):
    """Rows of two charts, without those that there is no data for."""
    charts = [chart for chart in charts if chart]
    return [{"hconcat": charts[at:at + 2], "spacing": GAP, "bounds": "flush", "resolve": OWN_SCALES}
            for at in range(0, len(charts), 2)]


def versions():
    names = []
    for package in ("lighthouse-attention", "vl-convert-python"):
        try:
            names.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:  # used from a checkout
            pass
    return "Made with " + ", ".join(names)

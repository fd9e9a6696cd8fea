"""Writes the tables of docs/experiments.md from the records in results/: one of each ladder's pairs, one of all runs."""
import argparse
import fnmatch
import json
import re
import statistics
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT / "python"))
import plan  # noqa: E402
from lighthouse_report.comparison import Measure, clock_at_loss  # noqa: E402
from lighthouse_report.runs import read_run  # noqa: E402
from lighthouse_report.student import estimate  # noqa: E402

FINAL = Measure("eval.json", True)
MARGIN = 0.005  # of the mean dense loss
TAIL = 0.1      # of the steps, whose validations are averaged
COPY = (192, 4032)
FAR_LADDERS = {"c": 65536, "e": 16384}  # and the position from which on is far
FAR_COPIES = (8, 2)     # what is copied stands N / 8 - 64 and N / 2 - 64 tokens back
USED_CONTEXT = 0.05     # far context is used from that share of the dense loss on


class Made:
    """A run that is made."""

    def __init__(self, folder):
        self.name = folder.name
        self.record = json.loads((folder / "record.json").read_text())
        self.run = read_run(folder) if self.record["exit_code"] == 0 else None
        self.evaluated = (folder / "eval.json").exists()

    @property
    def card(self):
        return re.sub(r"^NVIDIA |,.*", "", self.run.machine)

    @property
    def tail(self):
        return statistics.fmean(record["validation_loss"] for record in self.run.validations
                                if record["step"] > (1 - TAIL) * self.run.steps)

    def copy(self, distance):
        """Bits a byte; "-" where that distance was not asked for."""
        return next((f"{cell['value']:.2f}" for cell in self.run.evaluation.copies if cell["distance"] == distance), "-")

    @property
    def far_loss(self):
        """At the far end of the sequence: the last bucket of positions."""
        return next(bucket["value"] for bucket in reversed(self.run.evaluation.positions) if bucket["attention"] == "dense")

    @property
    def far_worth(self):
        """Nats a byte that the loss is higher with the last 4,096 to 5,119 tokens alone."""
        return self.run.evaluation.context["difference"]

    def first_dense(self):
        """The dense loss at the first validation of stage two; None of a run without stage one."""
        begin = self.run.lighthouse_steps
        return next((record["validation_loss"] for record in self.run.validations if record["step"] > begin), None) if begin else None

    def passkey(self):
        cells = self.run.evaluation.retrieval["passkey"]
        return sum(cell["correct"] for cell in cells) / sum(cell["trials"] for cell in cells)


def table(header, rows):
    return ["| " + " | ".join(map(str, row)) + " |" for row in (header, ["---"] * len(header), *rows)]


def interval(values, digits=4):
    found = estimate(values)
    return f"{found.mean:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}], p = {found.p:.2g}"


def seconds(value):
    return "-" if value is None else "never" if value == float("inf") else f"{value:.0f}"


def ratio(clock, run, base):
    """Seconds of one run over those of another, by "train_seconds" or "time"; None where they ran on other cards."""
    return run.run.last[clock] / base.run.last[clock] if run.card == base.card else None


def three_digits(value):
    return "-" if value is None else f"{value:.3f}"


def verdict(differences, base):
    """What docs/experiments.md calls non-inferior and superior, by the upper end of the interval."""
    high = estimate(differences).high
    return "superior" if high < 0 else "non-inferior" if high <= MARGIN * base else "neither non-inferior nor superior"


def control_verdict(differences, base):
    """What Lighthouse does against a control, as docs/experiments.md has it for ladder E."""
    found = estimate(differences)
    if found.high < 0:
        return "helps"
    if found.low > 0:
        return "hurts"
    return "does not help" if found.low > -MARGIN * base else "not decided"


def pair_tables(ladder, made):
    """The pairs of the main arms and what they show."""
    pairs = [(dense, made[dense.name.replace("dense", "two-stage")]) for dense in made.values()
             if fnmatch.fnmatch(dense.name, f"{ladder}-dense-s*") and dense.name.replace("dense", "two-stage") in made]
    pairs = [pair for pair in pairs if pair[0].run and pair[1].run]
    if not pairs:
        return []
    loss = [(FINAL.loss(dense.run), FINAL.loss(two.run)) for dense, two in pairs]
    ratios = {clock: [ratio(clock, two, dense) for dense, two in pairs] for clock in ("train_seconds", "time")}
    rows = [[dense.record["seed"], f"{base:.4f}", f"{other:.4f}", f"{other - base:+.4f}",
             *(f"{one.run.last['train_seconds']:.1f}" for one in (dense, two)), *map(three_digits, both),
             seconds(clock_at_loss(two.run, dense.run.last["validation_loss"], "train_seconds"))]
            for (dense, two), (base, other), both in zip(pairs, loss, zip(*ratios.values()))]
    cards, dates = ([*dict.fromkeys(look(one) for pair in pairs for one in pair)]
                    for look in (lambda one: one.card, lambda one: one.record["date"]))
    lines = [f"### Ladder {ladder.upper()}: {', '.join(cards)}, {', '.join(dates)}", ""]
    lines += table(["seed", "dense loss", "two-stage loss", "difference", "dense, s of steps", "two-stage, s", "ratio",
                    "ratio with validation", "s until dense's last loss"], rows)
    if len(pairs) > 1:
        base = statistics.fmean(first for first, _ in loss)
        differences = [second - first for first, second in loss]
        lines += ["", f"* Final weights: mean difference {interval(differences)}; the mean dense loss is {base:.4f}, the margin "
                  f"{MARGIN * base:+.4f}: **{verdict(differences, base)}**.",
                  f"* Mean of the validations in the last tenth: {interval([two.tail - dense.tail for dense, two in pairs])}."]
        for name, found in zip(("steps alone", "with validation"), ratios.values()):
            found = [value for value in found if value is not None]
            lines.append(f"* Time, {name}, of {len(found)} pairs on one card: two-stage over dense {statistics.fmean(found):.3f} "
                         f"({min(found):.3f} to {max(found):.3f}).")
    return [*lines, ""]


def arm_table(ladder, made):
    """Controls and ablations, each run against the main arms of its seed."""
    rows = []
    for arm in plan.CONTROLS | plan.FIRST_ABLATIONS | plan.WINDOW_LAYERS | plan.E_MIXTURES | plan.ABLATIONS:
        for seed in range(1, plan.SEEDS[ladder] + 1):
            one, *main = (made.get(f"{ladder}-{name}-s{seed}") for name in (arm, "dense", "two-stage"))
            if not all(other and other.run and other.evaluated for other in (one, *main)):
                continue
            loss = FINAL.loss(one.run)
            rows.append([arm, seed, f"{loss:.4f}", *(f"{loss - FINAL.loss(other.run):+.4f}" for other in main),
                         *(three_digits(ratio("train_seconds", one, other)) for other in main)])
    if not rows:
        return []
    return [f"### Ladder {ladder.upper()}: controls and ablations", "",
            *table(["arm", "seed", "dense loss", "less dense", "less two-stage", "time over dense", "over two-stage"], rows), ""]


def far_table(ladder, made):
    """What each arm of the ladder makes of far context, and Lighthouse in stage one against each other arm, by seed."""
    found = {}
    for arm in plan.MAIN_ARMS | plan.E_CONTROLS | plan.E_MIXTURES:
        runs = (made.get(f"{ladder}-{arm}-s{seed}") for seed in plan.seeds_of(ladder))
        found[arm] = {one.record["seed"]: one for one in runs if one and one.run and one.evaluated}
    copies = [plan.LADDERS[ladder].seq_len // part - 64 for part in FAR_COPIES]
    rows = [[arm, seed, f"{FINAL.loss(one.run):.4f}", f"{one.far_loss:.4f}", f"{one.far_worth:.4f}",
             *map(one.copy, copies), three_digits(one.first_dense())]
            for arm, runs in found.items() for seed, one in runs.items()]
    if not rows:
        return []
    positions = f"from {FAR_LADDERS[ladder]:,} on"
    lines = [f"### Ladder {ladder.upper()}: far context", "", *table(
        ["arm", "seed", "dense loss", f"at positions {positions}", "worth of far context", f"copy at {copies[0]:,}, bits",
         f"at {copies[1]:,}", "dense loss, first of stage two"], rows), ""]
    dense = list(found["dense"].values())
    if dense:
        worth = statistics.fmean(one.far_worth for one in dense) / statistics.fmean(FINAL.loss(one.run) for one in dense)
        lines.append(f"* The dense arm's far context is worth {worth:.1%} of its loss: the ladder "
                     f"{'can say something' if worth >= USED_CONTEXT else '**says nothing**'} (at least {USED_CONTEXT:.0%}).")
    for arm, others in found.items():
        seeds = sorted(others.keys() & found["two-stage"].keys())
        if arm == "two-stage" or arm in plan.E_MIXTURES or len(seeds) < 2:
            continue
        looks = {"loss": lambda one: FINAL.loss(one.run), positions: lambda one: one.far_loss,
                 "worth of far context": lambda one: one.far_worth}
        less = {name: [look(found["two-stage"][seed]) - look(others[seed]) for seed in seeds] for name, look in looks.items()}
        said = "" if arm == "dense" or not dense else (
            f" Lighthouse **{control_verdict(less['loss'], statistics.fmean(FINAL.loss(one.run) for one in dense))}**.")
        lines.append(f"* Two-stage less {arm}, {len(seeds)} seeds: "
                     f"{'; '.join(f'{name} {interval(values)}' for name, values in less.items())}.{said}")
    return [*lines, ""]


def transition_table(ladder, made):
    """By arm and seed the dense loss, in bold where the model came through its transition; and how much less windows between the layers
    leave than each other stage one, of new seeds alone and of all."""
    found = {(arm, seed): made.get(f"{ladder}-{arm}-s{seed}") for arm in plan.MAIN_ARMS | plan.C_CONTROLS | plan.C_WINDOW | plan.C_WINDOW_LAYERS
             for seed in plan.seeds_of(ladder)}
    found = {key: one for key, one in found.items() if one and one.run and one.evaluated}
    if not any(seed in plan.C_NEW_SEEDS for _, seed in found):
        return []

    def cell(one):
        loss = "-" if one is None else f"{FINAL.loss(one.run):.4f}"
        return f"**{loss}**" if one and one.far_worth >= plan.CAME_THROUGH else loss

    arms = [*dict.fromkeys(arm for arm, _ in found)]
    lines = [f"### Ladder {ladder.upper()}: the transition", "",
             f"Dense loss of the final weights; in bold where far context is worth {plan.CAME_THROUGH} nats or more.", "",
             *table(["arm", *(f"seed {seed}" for seed in plan.seeds_of(ladder))],
                    [[arm, *(cell(found.get((arm, seed))) for seed in plan.seeds_of(ladder))] for arm in arms]), ""]
    for arm in arms:
        for what, seeds in (("the new seeds", plan.C_NEW_SEEDS), ("all seeds", plan.seeds_of(ladder))):
            less = [FINAL.loss(found["window-layers", seed].run) - FINAL.loss(found[arm, seed].run) for seed in seeds
                    if {("window-layers", seed), (arm, seed)} <= found.keys()]
            if arm != "window-layers" and len(less) > 1:
                lines.append(f"* Window-layers less {arm}, {what} ({len(less)}): {interval(less)}.")
    return [*lines, ""]


def run_row(one):
    command = one.record["command"]
    rate = re.search(r"--optimizer.learning_rate (\S+)", command).group(1)
    if one.run is None:
        return [one.name, rate, "-", one.record["date"], f"failed, exit code {one.record['exit_code']}", *["-"] * 8]
    last = one.run.last
    losses = [f"{FINAL.loss(one.run):.4f}" if one.evaluated else "-", f"{one.tail:.4f}"]
    gap = FINAL.leaning(one.run) if one.evaluated else None
    copies = [one.copy(distance) if one.evaluated else "-" for distance in COPY]
    return [one.name, rate, one.card, one.record["date"], *losses, "-" if gap is None else f"{gap:+.2f}", *copies,
            f"{one.passkey():.2f}" if one.evaluated else "-", f"{last['train_seconds']:.1f}", f"{last['time']:.1f}",
            sum(record["spike"] is not None for record in one.run.records)]


def summary(results):
    made = {folder.name: Made(folder) for folder in sorted(results.iterdir()) if (folder / "record.json").exists()}
    lines = []
    for ladder in plan.LADDERS:
        lines += pair_tables(ladder, made)
        lines += arm_table(ladder, made)
        lines += far_table(ladder, made) if ladder in FAR_LADDERS else []
        lines += transition_table(ladder, made) if ladder == "c" else []
    lines += ["### All runs", ""]
    lines += table(["run", "rate", "card", "date", "dense loss", "last tenth", "Lighthouse less dense",
                    *[f"copy at {distance:,}, bits" for distance in COPY], "passkey", "s of steps", "s", "spikes"],
                   [run_row(one) for one in made.values()])
    return lines


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--page", type=Path, default=ROOT / "docs/experiments.md")
    arguments = parser.parse_args()
    begin, end = "<!-- tables: experiments/two_stage/summarize.py -->\n", "<!-- end of tables -->"
    before, found, rest = arguments.page.read_text().partition(begin)
    if not found or end not in rest:
        sys.exit(f"{arguments.page}: no place for the tables; it is marked {begin.strip()} and {end}")
    after = rest[rest.index(end):]
    arguments.page.write_text(before + begin + "\n".join(summary(arguments.results)) + "\n" + after)


if __name__ == "__main__":
    main()

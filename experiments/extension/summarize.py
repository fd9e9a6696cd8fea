#!/usr/bin/env python3
"""The table of docs/experiments.md from the records of the runs: summarize.py [RESULTS]"""
import json
import math
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "python"))
from lighthouse_report.student import estimate  # noqa: E402

KINDS = ("code", "prose")


def read(folder):
    """What a run's evaluation says: by kind the losses of the sequences and of each stretch of positions."""
    found = {}
    for kind in KINDS:
        tasks = json.loads((folder / f"eval-{kind}.json").read_text())["tasks"]
        sequences = {row["index"]: row["loss"] for row in tasks["loss"]["dense"]["sequences"]}
        found[kind] = {"loss": tasks["loss"]["dense"]["loss"], "sequences": sequences, "positions": tasks["position"]["dense"]}
    return found


def mean_of(positions, begin, end=math.inf):
    """The mean loss of the targets from position `begin` on, of which whole stretches lie below `end`."""
    rows = [row for row in positions if row["begin"] >= begin and row["end"] <= end]
    targets = sum(row["targets"] for row in rows)
    return sum(row["loss"] * row["targets"] for row in rows) / targets if targets else math.nan


def difference(run, dense):
    """The estimate of the mean difference of the losses of sequences, paired."""
    return estimate([run[kind]["sequences"][index] - loss for kind in KINDS for index, loss in dense[kind]["sequences"].items()])


def seconds(folder):
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return max(line["train_seconds"] for line in lines)


def rival_of(name):
    """The dense run that a run is compared with: of its seed, and of its rate."""
    arm, _, seed = name.rpartition("-")
    return f"dense-high-{seed}" if arm.endswith("-high") else f"dense-{seed}"


def row_of(folder, results):
    run = read(folder)
    longest = max(row["end"] for row in run["code"]["positions"])
    cells = [folder.name, f"{seconds(folder):.0f}" if (folder / "metrics.jsonl").exists() else ""]
    for kind in KINDS:
        positions = run[kind]["positions"]
        cells += [f"{run[kind]['loss']:.4f}", f"{mean_of(positions, 0, longest // 8):.4f}", f"{mean_of(positions, longest // 8):.4f}",
                  f"{mean_of(positions, longest // 2):.4f}"]
    rival = results / rival_of(folder.name)
    if rival != folder and (folder / "metrics.jsonl").exists() and (rival / "eval-prose.json").exists():
        found = difference(run, read(rival))
        cells.append(f"{found.mean:+.4f} ± {found.high - found.mean:.4f}")
    else:
        cells.append("")
    return "| " + " | ".join(cells) + " |"


def table(results):
    """Markdown; of each kind of text the loss of all targets, of the first eighth of the positions, of the rest, and of the last half."""
    folders = [folder for folder in sorted(results.glob("*")) if (folder / "eval-prose.json").exists()]
    head = ["run", "steps alone, s", *(f"{kind}{part}" for kind in KINDS for part in ("", ", first 1/8", ", after it", ", last half")),
            "less dense, of all sequences"]
    return "\n".join(["| " + " | ".join(head) + " |", "|---" * len(head) + "|", *(row_of(folder, results) for folder in folders)])


if __name__ == "__main__":
    print(table(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).resolve().parent / "results"))

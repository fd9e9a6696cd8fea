#!/usr/bin/env python3
"""Writes what `lighthouse plan` says into the starting configurations (configs/) and into their table in docs/training.md;
--check: says whether it is there already.

    python scripts/config_table.py --lighthouse build/release/bin/lighthouse
"""

import argparse
import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "training.md"
GIB = 2**30
DEVICES = {"smollm2-135m-32k": "h100", "smollm2-135m-64k": "h100", "llama3-1b-128k": "h100", "llama3-1b-1m": "h100",
           "llama3-8b-64k-1gpu": "h100", "llama3-8b-128k-1gpu": "h200", "llama3-8b-128k": "h200", "llama3-8b-1m": "h200"}
BEGIN, END = "<!-- starting configurations -->\n", "<!-- end of starting configurations -->\n"
HEADER = """| configuration | parameters | tokens of a sequence | GPUs | GiB of each | stage 1, s a step | stage 2 | all steps, h |
|---|---|---|---|---|---|---|---|
"""


def path_of(name):
    return ROOT / "configs" / f"{name}.toml"


def plan(lighthouse, name):
    result = subprocess.run([lighthouse, "plan", "--config", path_of(name), "--device", DEVICES[name], "--json"],
                            capture_output=True, text=True, check=False)
    if result.returncode:
        raise SystemExit(f"{name}: {result.stderr}")
    return json.loads(result.stdout)


def note(name, report):
    """The comment of a configuration."""
    lines = [f"# lighthouse plan --config configs/{name}.toml --device {DEVICES[name]}"]
    for stage in report["stages"]:
        lines.append(f"#   stage {stage['stage']}, {stage['attention']}: {stage['memory_bytes']['total'] / GIB:.1f} GiB, "
                     f"{stage['seconds']['total']:.2f} s a step, {stage['tokens_per_s']:,.0f} tokens/s")
    return "\n".join([*lines, f"#   all steps in {report['run_seconds'] / 3600:,.0f} hours", ""])


def with_note(name, report):
    """The configuration, whose comment is the last lines before its first section."""
    head, section, rest = path_of(name).read_text().partition("\n[model]")
    described = re.sub(r"#\n(# (plan|lighthouse plan)\b.*\n(#   .*\n)*)?\Z", "", head)
    return described + "#\n" + note(name, report) + section + rest


def row(name, report):
    length = int(re.search(r"^seq_len = (\d+)", path_of(name).read_text(), re.MULTILINE)[1])
    gpus = report.get("ranks", {"world_size": 1})["world_size"]
    seconds = [f"{stage['seconds']['total']:,.1f}" for stage in report["stages"]]
    return (f"| `{name}` | {report['parameters'] / 1e6:,.0f} M | {length:,} | {gpus} × {DEVICES[name].upper()} | "
            f"{report['memory_bytes'] / GIB:.0f} | {seconds[0]} | {seconds[1]} | {report['run_seconds'] / 3600:,.0f} |\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lighthouse", default=ROOT / "build" / "release" / "bin" / "lighthouse")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    reports = {name: plan(arguments.lighthouse, name) for name in DEVICES}
    page = PAGE.read_text()
    before, rest = page.split(BEGIN)
    wanted = {path_of(name): with_note(name, report) for name, report in reports.items()}
    wanted[PAGE] = before + BEGIN + HEADER + "".join(map(row, reports, reports.values())) + END + rest.split(END)[1]
    stale = [path for path, text in wanted.items() if path.read_text() != text]
    if arguments.check:
        names = ", ".join(str(path.relative_to(ROOT)) for path in stale)
        sys.exit(f"not what lighthouse plan says: {names}; run scripts/config_table.py" if stale else None)
    for path in stale:
        path.write_text(wanted[path])


if __name__ == "__main__":
    main()

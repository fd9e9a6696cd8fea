#!/usr/bin/env python3
"""Writes the tables of docs/scaling.md anew, from what `lighthouse plan` says; --check: says whether they are up to date.

    python scripts/scaling_table.py --lighthouse build/release/bin/lighthouse
"""

import argparse
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "scaling.md"
GIB = 2**30
PAPER = ["--config", ROOT / "configs" / "paper.toml", "--device", "h200", "--training.gradient_accumulation", 128]
LLAMA = ["--config", ROOT / "configs" / "paper.toml", "--model.preset", "llama3-8b", "--device", "h200",
         "--attention.full_attention_layers", "[]", "--training.gradient_accumulation", 32]


def selection(levels, topk, tile_topk):
    return ["--attention.num_levels", levels, "--attention.topk", topk, "--attention.tile_topk", tile_topk]


# name of a table: what is the same in its rows, their lengths with what is selected of them, and their numbers of GPUs
TABLES = {
    "paper": (PAPER, {98304: selection(3, 1536, 96), 1048576: selection(4, 4096, 128),
                      4194304: selection(5, 4096, 128), 16000000: selection(6, 4096, 128)},
              (1, 8, 64, 1024)),
    "llama": (LLAMA, {131072: selection(3, 2048, 64), 1048576: selection(4, 4096, 128),
                      4194304: selection(5, 4096, 128)},
              (8, 64, 256, 1024)),
    "rows": ([*PAPER, "--training.gradient_accumulation", 1], {
        1048576: selection(4, 4096, 128), 4194304: selection(5, 4096, 128)}, (8, 16, 32)),
}
OFFLOADS = {"offload": "offload", "offload_optimizer": "offload of the optimizer",
            "offload_weights": "offload of the weights"}
HEADER = """| tokens | GPUs | data × context | recompute | GiB a GPU | stage 1, s a step | tokens/s | efficiency: stage 1 | stage 2 |
|---|---|---|---|---|---|---|---|---|
"""


def plan(lighthouse, options):
    result = subprocess.run([lighthouse, "plan", "--json", *map(str, options)], capture_output=True, text=True, check=False)
    if result.returncode == 2:
        raise SystemExit(result.stderr)
    return json.loads(result.stdout)


def row(report, seq_len, world_size):
    ranks = report.get("ranks", {"data": 1, "context": 1, "recompute": report.get("recompute", "none")})
    if not report["fits"]:
        return f"| {seq_len:,} | {world_size:,} | does not fit | | {report['memory_bytes'] / GIB:.0f} | | | | |\n"
    kept = ranks["recompute"] + "".join(", " + name for key, name in OFFLOADS.items() if ranks.get(key))
    first, last = report["stages"]
    seconds, tokens = first["seconds"]["total"], first["tokens_per_s"]
    efficiency = [f"{100 * stage.get('efficiency', 1):.0f} %" for stage in (first, last)]
    return (f"| {seq_len:,} | {world_size:,} | {ranks['data']} × {ranks['context']} | {kept} | "
            f"{report['memory_bytes'] / GIB:.0f} | {seconds:,.1f} | {tokens:,.0f} | {efficiency[0]} | {efficiency[1]} |\n")


def table(lighthouse, name):
    common, lengths, sizes = TABLES[name]
    text = HEADER
    for seq_len, selected in lengths.items():
        for world_size in sizes:
            options = [*common, *selected, "--training.seq_len", seq_len, "--world-size", world_size]
            report = plan(lighthouse, options)
            if world_size == 1 and report["alternatives"]:  # of several GPUs it is the plan that chooses
                first = report["alternatives"][0]
                report = plan(lighthouse, [*options, *first["options"].split()])
                report["recompute"] = ", ".join(
                    OFFLOADS.get(key.removeprefix("training."), value)
                    for key, value in first["settings"].items() if key != "training.offload_layers")
            text += row(report, seq_len, world_size)
    return text


def page_with_tables(lighthouse, page):
    for name in TABLES:
        begin, end = f"<!-- table {name} -->\n", f"<!-- end of {name} -->\n"
        before, rest = page.split(begin)
        page = before + begin + table(lighthouse, name) + end + rest.split(end)[1]
    return page


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lighthouse", default=ROOT / "build" / "release" / "bin" / "lighthouse")
    parser.add_argument("--check", action="store_true")
    arguments = parser.parse_args()
    old = PAGE.read_text()
    new = page_with_tables(arguments.lighthouse, old)
    if arguments.check:
        sys.exit(None if new == old else "docs/scaling.md is not what lighthouse plan says: run scripts/scaling_table.py")
    PAGE.write_text(new)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Writes the CUDA part of docs/benchmarks.md and the times of docs/tuning.md, between their markers, and
docs/figures/attention-time.svg from the JSON lines of `lighthouse bench attention --device cuda --output FILE` and bench/flex_attention_window.py. Needs nothing but
Python 3.9."""

import argparse
import operator
import os
from pathlib import Path

from benchmark_plot import draw
from benchmark_results import read_results
from benchmark_targets import AUTHORS, FLEX_WINDOW_MS, SELECT_MS, STAGE_MIN_LEN, STAGE_SHARE, TARGETS, Case

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- begin: cuda -->", "<!-- end: cuda -->"
RELATIONS = {"≤": operator.le, ">": operator.gt, "≥": operator.ge}


def number(value, digits=3):
    """Significant digits, with no exponent."""
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 10 ** (digits - 1) else f"{value:.{digits}g}"


def mib(num_bytes):
    return "-" if num_bytes is None else f"{num_bytes / 2**20:,.0f}"


def met(is_met):
    return "-" if is_met is None else "yes" if is_met else "**no**"


def table(header, rows):
    lines = [header, ["---"] * len(header), *rows]
    return ["| " + " | ".join(str(cell) for cell in line) + " |" for line in lines] + [""]


def machine_lines(machine):
    return [
        f"{machine['gpu']}, driver {machine['driver']}, CUDA {machine['cuda']}, PyTorch {machine['torch']},"
        f" commit {machine['commit']}; {machine['dtype']}, B = {machine['batch']}, H = {machine['num_heads']},"
        f" H_kv = {machine['num_kv_heads']}, d = {machine['head_dim']}.",
        f"Copy {machine['copy_gb_per_s'] / 1e3:.2f} TB/s (read + write), 8192³ matrix product"
        f" {machine['matmul_gflop_per_s'] / 1e3:.0f} TFLOP/s. Command: `{machine['command']}`.",
        "",
    ]


def runs(results):
    counts = [results.lines.get(f"{name} forward+backward", {}).get("repeats") for name in ("lighthouse", "dense")]
    return "/".join(str(count) for count in counts if count is not None)


def time_row(results):
    passes = ("forward", "forward+backward")
    times = [number(results.ms(f"{name} {p}")) for name in ("dense", "sdpa_at_s", "lighthouse") for p in passes]
    theirs = AUTHORS.get(results.case)
    return [results.case, f"{results.any_line()['gathered_len']:,}", *times,
            *(number(results.overhead(p)) for p in passes), *(number(results.speed_up(p)) for p in passes),
            f"{theirs.forward_ms:g} / {theirs.both_ms:g}" if theirs else "-", runs(results),
            results.any_line().get("check", "-")]


def time_table(results):
    header = ["N, scorer, shape", "S", "dense fwd", "f+b", "at S fwd", "f+b", "ours fwd", "f+b", "overhead fwd", "f+b",
              "speed-up fwd", "f+b", "authors' fwd / f+b", "runs", "check"]
    return ["### Times", "", "Medians in ms. Runs: of ours and of dense, forward+backward.", "",
            *table(header, [time_row(case) for case in results.measured_cases()])]


def graph_table(results):
    what = "forward+backward in graph"
    rows = [[case.case, *(number(case.ms(f"{name} {what}")) for name in ("dense", "sdpa_at_s", "lighthouse")),
             number(case.overhead(what)), number(case.speed_up(what))]
            for case in results.measured_cases() if case.ms(f"lighthouse {what}") is not None]
    if not rows:
        return []
    return ["### In a CUDA graph", "", "Forward+backward replayed: the device's time without the host's, in ms.", "",
            *table(["N, scorer, shape", "dense", "at S", "ours", "overhead", "speed-up"], rows)]


def target_row(target, results):
    case = results.cases.get(target.case)
    value = target.value(case) if case else None
    reached = None if value is None else RELATIONS[target.relation](value, target.limit)
    return [target.case, target.what, f"{target.relation} {target.limit:g}", number(value, 4), met(reached),
            target.authors or "-"]


def flex_row(results):
    case = Case(98304, "norm", 3, 4, 1536)
    measured = results.flex_window
    limit = measured["both_ms"] if measured else FLEX_WINDOW_MS
    source = "measured in this run" if measured else "measured earlier"
    ours = results.cases[case].ms("lighthouse forward+backward") if case in results.cases else None
    return [case, "forward+backward, ms, against FlexAttention's sliding window of 1,744 tokens",
            f"< {limit:.3g} ({source})", number(ours, 4), met(None if ours is None else ours < limit), "8.14"]


def target_table(results):
    rows = [target_row(target, results) for target in TARGETS] + [flex_row(results)]
    meaning = "Overhead = time / time of SDPA at S; speed-up = time of dense / time, forward+backward."
    return ["### Targets", "", meaning, "", *table(["N, scorer, shape", "what", "target", "measured", "met", "authors' code"], rows)]


def memory_table(results):
    names = ("dense", "sdpa_at_s", "lighthouse")
    rows = [[case.case, *(mib(case.field("extra_bytes", name)) for name in names),
             *(mib(case.field("kept_bytes", name)) for name in names),
             f"{AUTHORS[case.case].extra_mib:,}" if case.case in AUTHORS else "-"]
            for case in results.measured_cases() if case.field("extra_bytes") is not None]
    if not rows:
        return []
    return ["### Memory", "",
            "MiB. Extra: the most in use during forward+backward, gradients included, inputs and the output's gradient"
            " not. Kept: in use between forward and backward, the output not counted.", "",
            *table(["N, scorer, shape", "extra dense", "at S", "ours", "kept dense", "at S", "ours",
                    "authors' extra"], rows)]


def stage_met(name, case, line):
    if case.seq_len < STAGE_MIN_LEN:
        return None
    if name == "select":
        return line["median_ms"] <= SELECT_MS
    return line["copy_share"] >= STAGE_SHARE if "copy_share" in line else None


def stage_row(case, name, line):
    share = line.get("copy_share", line.get("matmul_share"))
    of = "copy" if "copy_share" in line else "product"
    return [case, name, number(1e3 * line["median_ms"]), number(line["bytes"] / 1e6) if "bytes" in line else "-",
            "-" if share is None else f"{100 * share:.0f} % of a {of}", met(stage_met(name, case, line))]


def stage_table(results):
    rows = [stage_row(case.case, name, line) for case in results.measured_cases()
            for name, line in case.stages().items()]
    return ["### Stages", "",
            f"Each alone, in a CUDA graph, on arguments that are not in the L2 cache; bytes are those that it must"
            f" move. Target from N = {STAGE_MIN_LEN:,} on: {100 * STAGE_SHARE:.0f} % of the copy rate, select"
            f" {1e3 * SELECT_MS:.0f} µs.", "",
            *table(["N, scorer, shape", "stage", "µs", "MB", "rate", "met"], rows)]


def crossover_lines(results):
    said = [f"{length:,.0f} ({what})" for what, length in results.crossovers.items()]
    if not said:
        return []
    return ["Length from which it is faster than dense, L = 3, p = 4, k = N / 64: N = " + ", ".join(said) + ".", ""]


def failure_lines(results):
    return [line for case in results.failed_cases()
            for line in (f"{case.case}: failed, {case.lines['failed']['error'].splitlines()[0]}", "")]


def report(results, figure):
    lines = machine_lines(results.machine)
    if figure:
        lines += [f"![Time of dense, at S, the authors' code and ours against N]({figure})", ""]
    for part in (crossover_lines, time_table, graph_table, target_table, memory_table, stage_table, failure_lines):
        lines += part(results)
    return "\n".join(lines).rstrip() + "\n"


def tuning_row(results):
    both, graph = "forward+backward", "forward+backward in graph"
    return [results.case, f"{results.any_line()['gathered_len']:,}", number(results.ms(f"dense {both}")),
            number(results.ms(f"lighthouse {both}")), number(results.speed_up(both)), number(results.speed_up(graph)),
            number(results.overhead(both))]


def tuning(results):
    header = ["N, scorer, shape", "S", "dense, ms", "lighthouse, ms", "times faster", "in a CUDA graph",
              "over stock attention on S rows"]
    lines = ["", *crossover_lines(results), *table(header, [tuning_row(case) for case in results.measured_cases()])]
    return "\n".join(lines).rstrip() + "\n\n"


def put_between_markers(page, text):
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"benchmark_report: the page has no '{BEGIN}' and '{END}'")
    return f"{before}{BEGIN}\n{text}{END}{after}"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("results", type=Path, help="JSON lines")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "benchmarks.md")
    parser.add_argument("--tuning", type=Path, default=ROOT / "docs" / "tuning.md")
    parser.add_argument("--figure", type=Path, default=ROOT / "docs" / "figures" / "attention-time.svg")
    arguments = parser.parse_args()
    results = read_results(arguments.results)
    drawing = draw(results)
    if drawing:
        arguments.figure.write_text(drawing)
    link = os.path.relpath(arguments.figure, arguments.page.parent) if drawing else None
    pages = [(arguments.page, report(results, link)), (arguments.tuning, tuning(results))]
    for page, text in [(page, put_between_markers(page.read_text(), text)) for page, text in pages]:
        page.write_text(text)


if __name__ == "__main__":
    main()

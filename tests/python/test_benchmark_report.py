"""scripts/benchmark_report.py on a few made-up lines."""

import json
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest
from conftest import ROOT

MACHINE = {"bench": "attention", "commit": "abc", "command": "lighthouse bench attention", "cpu": "CPU", "threads": 8,
           "torch": "2.11.0", "gpu": "A GPU", "driver": "580.1", "cuda": "13.0", "copy_gb_per_s": 4000.0,
           "matmul_gflop_per_s": 780000.0, "device": "cuda", "dtype": "bfloat16", "batch": 1, "num_heads": 8,
           "num_kv_heads": 8, "head_dim": 128}
PAGE = "# Page\n\nbefore\n<!-- begin: cuda -->\nold\n<!-- end: cuda -->\nafter\n"


def line(seq_len, what, median_ms=None, topk=None, scorer="norm", **fields):
    case = {"scorer": scorer, "num_levels": 3, "pooling_factor": 4, "topk": topk or seq_len // 64, "seq_len": seq_len,
            "gathered_len": seq_len * 3 // 16, "check": "passed"}
    timing = {"median_ms": median_ms, "q1_ms": median_ms, "q3_ms": median_ms, "repeats": 20}
    return {**MACHINE, **case, "what": what, **(timing if median_ms else {}), **fields}


def case_lines(seq_len, dense_ms, stock_ms, ours_ms, **ours):
    return [line(seq_len, f"{name} {what}", share * ms, **(ours if name == "lighthouse" else {}))
            for name, ms in (("dense", dense_ms), ("sdpa_at_s", stock_ms), ("lighthouse", ours_ms))
            for what, share in (("forward", 0.25), ("forward+backward", 1.0))]


LINES = [
    *case_lines(8192, dense_ms=1.1, stock_ms=0.26, ours_ms=0.5),
    line(8192, "lighthouse forward+backward in graph", 0.4),
    line(8192, "dense forward+backward in graph", 1.2),
    *case_lines(98304, dense_ms=125.0, stock_ms=4.0, ours_ms=4.8, extra_bytes=900 * 2**20, kept_bytes=170 * 2**20),
    line(98304, "stage gather", 0.1, bytes=3.2e8, copy_share=0.8),
    line(98304, "stage scatter", 0.1, bytes=2.0e8, copy_share=0.5),
    line(98304, "stage select", 0.039, bytes=2.0e6, copy_share=0.01),
    line(98304, "failed", scorer="gla", error="no kernel\nbacktrace"),
    {**MACHINE, "what": "crossover forward+backward", "crossover_len": 5123.4},
    {**MACHINE, "device": "cpu", "what": "dense forward", "median_ms": 1.0},
    {"bench": "flex_attention_window", "both_ms": 7.4},
]


def run_report(folder, lines, page=PAGE):
    results, page_path, figure = folder / "bench.jsonl", folder / "page.md", folder / "time.svg"
    tuning = folder / "tuning.md"
    tuning.write_text(PAGE)
    results.write_text("".join(json.dumps(x) + "\n" for x in lines))
    page_path.write_text(page)
    done = subprocess.run([sys.executable, ROOT / "scripts" / "benchmark_report.py", results, "--page", page_path,
                           "--tuning", tuning, "--figure", figure], capture_output=True, text=True, timeout=60)
    return done, page_path.read_text(), figure


def row_of(text, *cells):
    rows = [row for row in text.splitlines() if row.startswith("|") and all(cell in row for cell in cells)]
    assert len(rows) == 1, (cells, rows)
    return rows[0]


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    done, text, figure = run_report(tmp_path_factory.mktemp("report"), LINES)
    assert done.returncode == 0, done.stderr
    return text, figure


def test_only_what_is_between_the_markers_changes(report):
    text, _ = report
    assert text.startswith("# Page\n\nbefore\n<!-- begin: cuda -->\n") and text.endswith("<!-- end: cuda -->\nafter\n")
    assert "old" not in text


def test_it_names_machine_command_and_failures(report):
    text, _ = report
    assert "A GPU, driver 580.1, CUDA 13.0, PyTorch 2.11.0, commit abc" in text
    assert "Command: `lighthouse bench attention`" in text
    assert "98,304, gla, L=3 p=4 k=1,536: failed, no kernel\n" in text
    assert "N = 5,123 (forward+backward)" in text


@pytest.mark.parametrize("cells, measured, is_met", [
    (("| 8,192", "forward+backward overhead"), "1.923", "yes"),
    (("| 8,192", "speed-up over dense"), "2.2", "yes"),
    (("| 8,192", "in a CUDA graph"), "3", "yes"),
    (("98,304", "norm", "forward+backward overhead"), "1.2", "**no**"),
    (("98,304", "norm", "speed-up over dense"), "26.04", "yes"),
    (("extra memory",), "900", "yes"),
    (("kept for backward, MiB",), "170", "**no**"),
    (("sliding window", "< 7.4"), "4.8", "yes"),
    (("524,288", "forward overhead"), "-", "-"),
])
def test_targets(report, cells, measured, is_met):
    text, _ = report
    targets = text[text.index("### Targets") : text.index("### Memory")]
    assert f"| {measured} | {is_met} |" in row_of(targets, *cells)


@pytest.mark.parametrize("stage, is_met", [("gather", "yes"), ("scatter", "**no**"), ("select", "yes")])
def test_stages(report, stage, is_met):
    text, _ = report
    assert row_of(text[text.index("### Stages") :], f"| {stage} |").endswith(f"| {is_met} |")


def test_the_figure_is_svg_with_all_curves(report):
    text, figure = report
    assert "![Time of dense, at S, the authors' code and ours against N](time.svg)" in text
    root = ElementTree.parse(figure).getroot()
    assert len(root.findall("{http://www.w3.org/2000/svg}polyline")) == 4


def test_a_second_run_changes_nothing(report, tmp_path):
    text, _ = report
    assert run_report(tmp_path, LINES, page=text)[1] == text


@pytest.mark.parametrize("lines, page, message", [
    (LINES, "no markers\n", "the page has no"),
    (LINES[-2:], PAGE, "no results"),
])
def test_what_it_cannot_do_is_said(tmp_path, lines, page, message):
    done, text, _ = run_report(tmp_path, lines, page)
    assert done.returncode == 1 and message in done.stderr
    assert text == page


def test_the_times_of_tuning_are_of_the_same_results(report, tmp_path):
    run_report(tmp_path, LINES)
    text = (tmp_path / "tuning.md").read_text()
    assert text.startswith("# Page\n\nbefore\n<!-- begin: cuda -->\n") and "N = 5,123 (forward+backward)" in text
    cells = [cell.strip() for cell in row_of(text, "| 8,192").split("|")[1:-1]]
    assert cells == ["8,192, norm, L=3 p=4 k=128", "1,536", "1.1", "0.5", "2.2", "3", "1.92"]


def test_the_two_pages_of_the_documentation_agree():
    pages = [(ROOT / "docs" / name).read_text() for name in ("benchmarks.md", "tuning.md")]
    blocks = [page.split("<!-- begin: cuda -->")[1].split("<!-- end: cuda -->")[0] for page in pages]
    times = blocks[0][blocks[0].index("### Times") : blocks[0].index("### In a CUDA graph")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in blocks[1].splitlines() if line.startswith("| ")]
    assert len(rows) > 10
    for case, gathered, dense, ours, speed_up, _, overhead in rows[2:]:
        cells = [cell.strip() for cell in row_of(times, f"| {case} |").split("|")[1:-1]]
        assert [cells[1], cells[3], cells[7], cells[11], cells[9]] == [gathered, dense, ours, speed_up, overhead]
    [crossover] = [line for line in blocks[1].splitlines() if line.startswith("Length from which")]
    assert crossover in blocks[0]

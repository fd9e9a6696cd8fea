"""lighthouse-report on made-up run folders: numbers, what is said of them, and what it refuses."""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folders import make_run

from lighthouse_report import student
from lighthouse_report.__main__ import main
from lighthouse_report.arms import make_arms
from lighthouse_report.comparison import Comparison, choose_measure, clock_at_loss, compare
from lighthouse_report.page import specification
from lighthouse_report.runs import read_run

STAGE_ONE = "stage one (looks ahead)"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Dense and two-stage, three seeds each."""
    folder = tmp_path_factory.mktemp("runs")
    for seed in (1, 2, 3):
        make_run(folder, f"dense-{seed}", seed)
        make_run(folder, f"two-stage-{seed}", seed, lighthouse_steps=250)
    return folder


@pytest.fixture
def copy(folder, tmp_path):
    """The same, to be damaged."""
    return Path(shutil.copytree(folder, tmp_path / "runs"))


def runs_of(folder):
    return sorted(path for path in folder.iterdir() if path.is_dir())


def arms_of(*folders):
    return make_arms([(None, read_run(folder)) for folder in folders])


def draw(*folders):
    return specification(arms_of(*folders), "Title", 0.5)


def charts(piece):
    """The charts and tables of a specification by title."""
    found = {}
    for part in piece.get("vconcat", []) + piece.get("hconcat", []):
        found |= charts(part)
    return found or {piece["title"]["text"]: piece}


def rows_of(chart):
    values = list(chart.get("data", {}).get("values", []))
    return values + [row for layer in chart.get("layer", []) for row in rows_of(layer)]


def cells(table):
    """{arm: [texts of its row]}, and under "" the last line of the head."""
    lines = {}
    for cell in table["layer"][1]["data"]["values"]:
        lines.setdefault(cell["line"], []).append((cell["x"], cell["text"], cell["head"]))
    rows = [[text for _, text, _ in sorted(line)] for _, line in sorted(lines.items())]
    return {row[0]: row[1:] for row in rows}


def report(*arguments):
    """Exit code of the command."""
    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as leaving:
        return leaving.code


class Tags(HTMLParser):
    """The tags of a page, none of which may load anything."""
    @classmethod
    def of(cls, text):
        parser = cls()
        parser.found = set()
        parser.feed(text)
        return parser.found

    def handle_starttag(self, tag, attributes):
        assert not {"src", "href"} & dict(attributes).keys()
        self.found.add(tag)


# What is written.

def test_page_svg_and_png(folder, tmp_path):
    page, svg, png = (tmp_path / f"report.{ending}" for ending in ("html", "svg", "png"))
    assert report(*runs_of(folder), "--output", page, "--svg", svg, "--png", png, "--title", "Runs <of> May") == 0
    text = page.read_text()
    assert "<title>Runs &lt;of&gt; May</title>" in text and len(text) < 1_500_000
    assert Tags.of(text) == {"html", "head", "meta", "title", "style", "script", "body", "main"}
    drawn = " ".join(ElementTree.parse(svg).getroot().itertext())
    for words in (
            "two-stage 62.5 %", "superior", STAGE_ONE, "Passkey: a digit hidden in text", "margin +0.5 %", "cuda:0, 8 threads"):
        assert words in drawn, words
    assert png.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.png", "report.svg"]


def test_nothing_in_a_name_ends_the_script(tmp_path):
    run = make_run(tmp_path, "dense")
    assert report(f"</script><script>alert(1)</script>={run}", "--output", tmp_path / "page.html") == 0
    assert "<script>alert" not in (tmp_path / "page.html").read_text()


def test_every_part_is_there(folder):
    assert list(charts(draw(*runs_of(folder)))) == [
        "Dense validation loss against tokens", "Dense validation loss against time",
        "Final dense validation loss minus that of dense, by seed",
        "Dense validation loss minus that of dense, by seed and tokens",
        "Final loss, nats per token, with 95 % intervals over seeds", "Time, speed and memory", "Training loss",
        "Switch and recovery: validation of the two-stage arms", "Loss by position in the sequence",
        "Copying a random hex string over a distance", "Passkey: a digit hidden in text",
        "Multikey: the digit of one key of several", "Speed of training steps",
        "Peak memory of the device", "Gradient norm before clipping", "Runs", "Configuration: what differs between the arms"]


def with_sources(run, gain):
    """Validation losses of two corpora, one of which is not in every sample."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    for number, line in enumerate(line for line in lines if "validation_loss" in line):
        line["sources"] = {"web": {"epochs": 0.5, "loss": 1.0, "validation_loss": line["validation_loss"] + gain}, "code": {"epochs": 1}}
        if number % 2:
            line["sources"]["code"]["validation_loss"] = 0.5
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_losses_by_corpus_of_a_mixture(copy):
    for run in runs_of(copy):
        with_sources(run, gain=0.25)
    found = charts(draw(*runs_of(copy)))
    whole = rows_of(found["Dense validation loss against tokens"])
    web, code = (rows_of(found[f"Dense validation loss on {name}"]) for name in ("web", "code"))
    value = {(row["arm"], row["tokens"]): row["value"] for row in whole if "value" in row}
    assert len(web) == len(whole) > len(code) > 0
    assert all(row["value"] == pytest.approx(value[row["arm"], row["tokens"]] + 0.25) for row in web if "value" in row)
    assert {row["value"] for row in code if "value" in row} == {0.5}


def test_damaged_sources_are_refused(copy, tmp_path, capsys):
    run = runs_of(copy)[0]
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    for sources in ([], {"web": 1}, {"web": {"validation_loss": "low"}}):
        metrics.write_text(json.dumps(json.loads(lines[0]) | {"sources": sources}) + "\n")
        assert report(run, "--output", tmp_path / "page.html") == 1
        assert "metrics.jsonl:1: damaged" in capsys.readouterr().err


def test_changes_on_the_way(copy):
    assert "Changes on the way" not in charts(draw(*runs_of(copy)))
    changes = [{"step": 1200, "key": "training.seq_len", "before": "4096", "after": "65536"}]
    (copy / "two-stage-2" / "run.json").write_text(json.dumps({"changes": changes}))
    texts = [row["text"] for row in rows_of(charts(draw(*runs_of(copy)))["Changes on the way"]) if "text" in row]
    assert {"1,200", "training.seq_len", "4096", "65536"} <= set(texts) and sum("two-stage-2" in text for text in texts) == 1


def test_it_needs_no_torch():
    code = "import sys, lighthouse_report.__main__; assert not {'torch', 'lighthouse_attention'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    shown = subprocess.run([sys.executable, "-m", "lighthouse_report", "--help"], check=True, capture_output=True, text=True,
                           timeout=60)
    assert "[NAME=]RUN" in shown.stdout


# Numbers.

@pytest.mark.parametrize(("freedom", "t"), [(1, 12.7062), (2, 4.30265), (5, 2.57058), (63, 1.99834), (1000, 1.96234)])
def test_student_quantiles(freedom, t):
    assert student.quantile(0.95, freedom) == pytest.approx(t, rel=1e-5)
    assert student.probability(t, freedom) == pytest.approx(0.95, abs=1e-6)


def test_estimate():
    mean = student.estimate([1.0, 2.0, 4.0])
    half = 4.30265 * statistics.stdev([1, 2, 4]) / 3**0.5
    assert (mean.low, mean.high) == pytest.approx((7 / 3 - half, 7 / 3 + half), rel=1e-5)
    assert mean.p == pytest.approx(0.1181, abs=1e-4)  # of t = 2.646 with two degrees
    assert student.estimate([2.0]).low is None and student.estimate([2.0, 2.0]).p == pytest.approx(0)


def test_final_losses_are_paired_by_seed(folder):
    differences = []
    for seed in (1, 2, 3):
        dense, two_stage = (json.loads((folder / f"{name}-{seed}" / "eval.json").read_text())["tasks"]["loss"]["dense"]["loss"]
                            for name in ("dense", "two-stage"))
        differences.append(two_stage - dense)
    half = 4.30265 * statistics.stdev(differences) / 3**0.5
    mean = statistics.fmean(differences)
    drawing = charts(draw(*runs_of(folder)))
    row = cells(drawing["Final loss, nats per token, with 95 % intervals over seeds"])["two-stage 62.5 %"]
    assert row[2] == f"{mean:.4f} [{mean - half:.4f}, {mean + half:.4f}]".replace("-", "−")
    assert row[5] == "superior" and row[6] == "+0.0100"
    final = rows_of(drawing["Final dense validation loss minus that of dense, by seed"])
    for seed, difference in zip("123", differences):
        assert [row["value"] for row in final if row.get("seed") == seed] == pytest.approx([difference] * 2, rel=1e-5)


@pytest.mark.parametrize(("values", "verdict"), [
    ([-0.010, -0.011, -0.012], "superior"), ([0.001, 0.002, 0.0], "non-inferior"), ([0.02, 0.021, 0.022], "inferior"),
    ([-0.05, 0.0, 0.05], "not shown"), ([-0.01], "no verdict")])
def test_verdicts(values, verdict):
    comparison = Comparison(None, [], 0, student.estimate(values), margin=0.005)
    assert comparison.verdict == verdict


def test_losses_of_eval_count_only_where_all_runs_have_them(copy):
    assert choose_measure(arms_of(*runs_of(copy))).name == "eval.json, 64 sequences of 32,768 tokens"
    (copy / "dense-2" / "eval.json").unlink()
    arms = arms_of(*runs_of(copy))
    measure = choose_measure(arms)
    assert measure.name == "last validation of each run"
    pair = compare(arms[0], arms[1], measure, 0.5).pairs[1]
    assert pair.difference == pair.run.last["validation_loss"] - pair.base.last["validation_loss"] and pair.over_sequences is None


def test_time_to_the_loss_of_the_baseline(folder):
    dense, two_stage = read_run(folder / "dense-1"), read_run(folder / "two-stage-1")
    target = dense.last["validation_loss"]
    first = next(record for record in two_stage.validations if record["validation_loss"] <= target)
    assert clock_at_loss(two_stage, target, "train_seconds") == first["train_seconds"] < dense.last["train_seconds"]
    assert clock_at_loss(two_stage, 0.1, "time") == float("inf")
    row = cells(charts(draw(dense.path, two_stage.path))["Time, speed and memory"])["two-stage 62.5 %"]
    minutes, seconds = divmod(round(first["train_seconds"]), 60)
    assert row[1] == "0.61" and row[4] == f"{minutes}:{seconds:02}"
    stages = [statistics.median(record["tokens_per_s"] for record in two_stage.records if record["stage"] == stage)
              for stage in (1, 2)]
    assert row[6:] == [*(f"{median:,.0f}" for median in stages), "14.0", "3.28 M", "0"]


def test_stage_one_losses_look_ahead(folder):
    training = charts(draw(*runs_of(folder)))["Training loss"]
    rows = [row for row in rows_of(training) if "attention" in row]
    assert {(row["arm"], row["stage"], row["attention"]) for row in rows} == {
        ("dense", 2, "dense attention"), ("two-stage 62.5 %", 1, STAGE_ONE), ("two-stage 62.5 %", 2, "dense attention")}
    for layer in training["layer"][1]["layer"]:
        dash = layer["encoding"]["strokeDash"]
        assert dash["scale"] == {"domain": ["dense attention", STAGE_ONE], "range": [[1, 0], [5, 3]]} and dash["legend"]


def test_accuracy_is_that_of_all_seeds(folder):
    rows = rows_of(charts(draw(*runs_of(folder)))["Passkey: a digit hidden in text"])
    cell = next(row for row in rows if (row["arm"], row["length"], row["depth"]) == ("dense", 8192, 0.5))
    right = 0
    for seed in (1, 2, 3):
        tasks = json.loads((folder / f"dense-{seed}" / "eval.json").read_text())["tasks"]
        right += next(each["correct"] for each in tasks["passkey"]["cells"] if (each["length"], each["depth"]) == (8192, 0.5))
    assert cell["trials"] == 30 and cell["right"] == right and cell["accuracy"] == pytest.approx(right / 30)


# Arms.

def test_arms_are_named_by_what_differs(tmp_path):
    made = [make_run(tmp_path, "a", lighthouse_steps=200), make_run(tmp_path, "b", 2, lighthouse_steps=200),
            make_run(tmp_path, "c", topk=7), make_run(tmp_path, "d", lighthouse_steps=200, topk=64),
            make_run(tmp_path, "e", learning_rate=1e-3), make_run(tmp_path, "f", steps=100)]
    assert [(arm.name, len(arm.runs)) for arm in arms_of(*made)] == [
        ("dense", 1), ("two-stage 50 %, topk 512", 2), ("two-stage 50 %, topk 64", 1), ("dense, learning_rate 0.001", 1),
        ("dense, steps 100", 1)]


def test_keys_that_came_later_and_processes_make_no_arm(tmp_path):
    made = [make_run(tmp_path, "a"), make_run(tmp_path, "b", 2)]
    config = made[1] / "config.toml"
    config.write_text(config.read_text().replace("[training]", '[parallel]\ndata = 2\n[training]\naccumulation = "sequence"'))
    assert [(arm.name, len(arm.runs)) for arm in arms_of(*made)] == [("dense", 2)]


def test_names_and_baseline_of_the_user(folder, tmp_path, capsys):
    page = tmp_path / "page.html"
    runs = [f"{name}={folder}/{name}-{seed}" for name in ("dense", "two-stage") for seed in (1, 2)]
    assert report(*runs, "--output", page, "--baseline", "two-stage") == 0
    assert "Final dense validation loss minus that of two-stage, by seed" in page.read_text()
    assert report(*runs, "--output", page, "--baseline", "two stage") == 2
    assert "--baseline two stage: no such arm; there are 'dense', 'two-stage'" in capsys.readouterr().err


# Runs that are not whole, or old.

def test_run_in_progress(folder, tmp_path):
    going = make_run(tmp_path, "going", 2, lighthouse_steps=250, done=300)
    with open(going / "metrics.jsonl", "a") as file:
        file.write('{"step": 301, "sta')
    drawing = draw(folder / "dense-1", folder / "dense-2", folder / "two-stage-1", going)
    assert "1 seed (1 in progress): no verdict" in drawing["title"]["subtitle"][0]
    drawing = charts(drawing)
    assert cells(drawing["Final loss, nats per token, with 95 % intervals over seeds"])["two-stage 62.5 %"][0] == "1 of 2"
    assert any("300 of 400, in progress" in row["text"] for row in rows_of(drawing["Runs"]) if "text" in row)
    rows = [row for row in rows_of(drawing["Dense validation loss against tokens"]) if row.get("line")]
    ends = {line: max(row["tokens"] for row in rows if row["arm"] != "dense" and row["line"] == line)
            for line in ("mean", "run 1")}
    assert ends == {"mean": 300 * 65536, "run 1": 400 * 65536}


def test_first_steps_of_one_run(tmp_path):
    drawing = charts(draw(make_run(tmp_path, "new", done=3)))
    assert list(drawing) == ["Final loss, nats per token, with 95 % intervals over seeds", "Time, speed and memory",
                             "Training loss", "Speed of training steps", "Peak memory of the device",
                             "Gradient norm before clipping", "Runs"]


def test_old_runs(tmp_path):
    made = [make_run(tmp_path, "dense", old=True, evaluated=False),
            make_run(tmp_path, "two-stage", lighthouse_steps=250, old=True, evaluated=False)]
    drawing = charts(draw(*made))
    assert "Peak memory of the device" not in drawing
    time = drawing["Dense validation loss against time"]["layer"][0]["encoding"]["x"]
    assert time["field"] == "time" and time["title"] == "minutes, evaluation included"
    row = cells(drawing["Time, speed and memory"])["two-stage 62.5 %"]
    assert row[:4] == ["–", "–", "3:57", "0.68"]


def test_losses_that_are_not_finite_are_left_out(copy):
    metrics = copy / "dense-1" / "metrics.jsonl"
    metrics.write_text(re.sub(r'"loss": [0-9.]+', '"loss": null', metrics.read_text(), count=1))
    run = read_run(metrics.parent)
    assert "loss" not in run.records[0] and "loss" in run.records[1]


# What it refuses.

def cut(path, size=200):
    path.write_text(path.read_text()[:size])


def edit(path, before, after):
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after, 1))


STATE = "checkpoints/step-00000400/state.json"


@pytest.mark.parametrize(("damage", "message"), [
    (lambda run: (run / "metrics.jsonl").unlink(), "dense-1: no run of `lighthouse train`: it has no metrics.jsonl"),
    (lambda run: (run / "config.toml").unlink(), "dense-1: no run of `lighthouse train`: it has no config.toml"),
    (lambda run: (run / "metrics.jsonl").write_text(""), "metrics.jsonl: no step yet"),
    (lambda run: edit(run / "metrics.jsonl", '{"step": 7,', '{"step" 7,'), "metrics.jsonl:7: damaged: Expecting ':'"),
    (lambda run: edit(run / "metrics.jsonl", '"step": 7,', '"step": 5,'), "metrics.jsonl:7: damaged: step 5 after step 6"),
    (lambda run: edit(run / "metrics.jsonl", '"tokens": 65536', '"tokens": "many"'), ":1: damaged: tokens is 'many'; must be a number"),
    (lambda run: edit(run / "metrics.jsonl", '"stage": 2', '"stage": 3'), "metrics.jsonl:1: damaged: stage is 3; must be an integer from 1 to 2"),
    (lambda run: (run / "metrics.jsonl").write_bytes(b'{"step": 1}\n\xff\n'), "metrics.jsonl:2: damaged: not UTF-8"),
    (lambda run: cut(run / "eval.json"), "eval.json:1: damaged"),
    (lambda run: edit(run / "eval.json", '"format": 1', '"format": 2'), "eval.json: format 2; this program reads 1"),
    (lambda run: edit(run / "eval.json", '"step": 400', '"step": null'), "eval.json: step None; results of a run have a step"),
    (lambda run: edit(run / "eval.json", '"distance"', '"dist"'), "eval.json: not what `lighthouse eval --json` writes"),
    (lambda run: cut(run / STATE, 30), "state.json:1: damaged"),
    (lambda run: (run / "run.json").write_text('{"changes": [{"step": 1}]}'), "run.json: damaged: changes must be"),
    (lambda run: edit(run / "config.toml", "steps = 400", "steps = "), "config.toml: damaged: Invalid value"),
    (lambda run: edit(run / "config.toml", "steps = 400", 'steps = "400"'), "training.steps is '400'; must be an integer"),
    (lambda run: edit(run / "eval.json", '"c0ffee"', '"7ea"'), "of different corpora (fingerprints"),
    (lambda run: edit(run / STATE, '"c0ffee"', '"7ea"'), "of different corpora (fingerprints"),
    (lambda run: run.joinpath("eval-2.json").write_text((run / "eval.json").read_text().replace("c0ffee", "7ea")),
     "measured on another corpus than the other results in this folder"),
    (lambda run: edit(run / "config.toml", "seed = 1", "seed = 2"), "have the same configuration and seed 2 / 1"),
])
def test_bad_runs(copy, tmp_path, capsys, damage, message):
    runs = runs_of(copy)
    edit(copy / "dense-2" / "config.toml", '[data]\npath = "corpus"\nseed = 2', '[data]\npath = "corpus"\nseed = 1')
    damage(copy / "dense-1")
    assert report(*runs, "--output", tmp_path / "page.html", "--svg", tmp_path / "page.svg") == 1
    error = capsys.readouterr().err
    assert error.startswith("lighthouse-report: ") and message in error and error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["runs"], "something was written"


def test_other_corpora_of_runs_before_eval(tmp_path, capsys):
    made = [make_run(tmp_path, "a", old=True, evaluated=False, corpus="one"),
            make_run(tmp_path, "b", old=True, evaluated=False, corpus="two", lighthouse_steps=250)]
    assert report(*made, "--output", tmp_path / "page.html") == 1
    assert "of different corpora (fingerprints one-1 and two-1)" in capsys.readouterr().err
    assert report(made[0], make_run(tmp_path, "c", 2, old=True, evaluated=False, corpus="one", lighthouse_steps=250),
                  "--output", tmp_path / "page.html") == 0, "fingerprints of different seeds always differ"


@pytest.mark.parametrize(("arguments", "message"), [
    ((), "--output"), (("--output", "p.html", "--margin", "-1"), "--margin -1: must be from 0 to 100"),
    (("--output", "p.html", "--svg", "p.html"), "must be different files"),
    (("--output", "p.html", "--svg", "./p.html"), "must be different files"),
    (("--output", "p.html", "--margin", "x"), "--margin"), (("no-such-run", "--output", "p.html"), "no-such-run: no such run folder")])
def test_wrong_usage(folder, capsys, arguments, message):
    assert report(folder / "dense-1", *arguments) == 2
    assert message in capsys.readouterr().err


def test_bad_targets(folder, tmp_path, capsys, monkeypatch):
    assert report(folder / "dense-1", "--output", tmp_path / "absent" / "page.html") == 1
    assert "the folder" in (error := capsys.readouterr().err) and "does not exist; make it first" in error
    assert report(folder / "dense-1", "--output", tmp_path) == 2
    assert "is a folder; give the name of a file" in capsys.readouterr().err
    page = tmp_path / "page.html"
    page.write_text("")

    def fail(*_):
        raise OSError(28, "No space left on device")
    monkeypatch.setattr(os, "replace", fail)
    assert report(folder / "dense-1", "--output", page) == 1
    assert f"{page}: cannot be written: No space left on device" in capsys.readouterr().err
    assert page.read_text() == "" and list(tmp_path.iterdir()) == [page]


def test_without_the_drawing_library(folder, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "vl_convert", None)
    assert report(folder / "dense-1", "--output", tmp_path / "page.html") == 1
    assert "pip install 'lighthouse-attention[report]'" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())

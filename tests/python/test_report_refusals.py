"""lighthouse-report on files that it must not touch, names that cannot be drawn, impossible values, and results of eval that may
not stand beside each other."""

import json
import os
import socket
import subprocess
import sys

import pytest
from run_folders import make_run
from test_report import charts, copy, draw, edit, folder, report, rows_of, runs_of  # noqa: F401

from lighthouse_report.runs import read_run

PAGE, SVG, PNG = ("page.html", "page.svg", "page.png")
STATE = "checkpoints/step-00000040/state.json"


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return make_run(tmp_path_factory.mktemp("run"), "dense", steps=40)


def refused(capsys, *arguments, words, place=""):
    assert report(*arguments) == 1
    error = capsys.readouterr().err
    assert error.startswith("lighthouse-report: ") and place in error and words in error and error.count("\n") == 1
    assert "Error:" not in error, "a name of an exception"


# What is there already.

def test_links_are_followed(run, tmp_path):
    place, link = tmp_path / "elsewhere" / "it.html", tmp_path / PAGE
    place.parent.mkdir()
    link.symlink_to(place)
    for _ in ("dangling", "to the page before"):
        assert report(run, "--output", link) == 0
        assert link.is_symlink() and place.read_text().startswith("<!DOCTYPE html>")
    assert list(place.parent.iterdir()) == [place]


@pytest.mark.parametrize("linked", [False, True], ids=["itself", "a link to it"])
@pytest.mark.parametrize("kind", ["fifo", "socket", "device"])
def test_what_is_no_file_stays(run, tmp_path, capsys, monkeypatch, kind, linked):
    monkeypatch.chdir(tmp_path)  # names of sockets are short
    if kind == "fifo":
        os.mkfifo("it")
    elif kind == "socket":
        socket.socket(socket.AF_UNIX).bind("it")
    elif linked:
        os.symlink("/dev/full", "it")
    else:
        try:
            os.mknod("it", 0o20600, os.makedev(1, 7))
        except PermissionError:
            pytest.skip("making a device needs root")
    before = os.lstat("it")
    if linked:
        os.symlink("it", "link")
    for option in ("--svg", "--png"):
        refused(capsys, run, "--output", PAGE, option, "link" if linked else "it", words="is no regular file")
    refused(capsys, run, "--output", "link" if linked else "it", words="is no regular file")
    assert os.lstat("it") == before and sorted(os.listdir()) == (["it", "link"] if linked else ["it"])


def test_files_of_others_stay(run, tmp_path, capsys):
    page = tmp_path / PAGE
    for option, name in (("--output", "mine.html"), ("--svg", "mine.svg"), ("--png", "mine.png")):
        mine = tmp_path / name
        mine.write_text("<!DOCTYPE html>\n<html><body>my notes</body></html>\n")
        arguments = (option, mine) if option == "--output" else ("--output", page, option, mine)
        refused(capsys, run, *arguments, words=f"{mine}: is there already and no earlier result of {option}")
        assert "my notes" in mine.read_text() and not page.exists()


def test_its_own_results_are_replaced(run, tmp_path):
    for _ in range(2):
        assert report(run, "--output", tmp_path / PAGE, "--svg", tmp_path / SVG, "--png", tmp_path / PNG) == 0
    assert report(run, "--output", tmp_path / "other.html", "--svg", tmp_path / PAGE) == 1, "another kind of its results"


@pytest.mark.parametrize("name", ["config.toml", "metrics.jsonl", "eval.json", "eval-new.json", "run.json",
                                  "checkpoints/page.html"])
def test_inputs_stay(tmp_path, capsys, name):
    run = make_run(tmp_path, "dense", steps=40)
    before = {file: file.read_bytes() for file in run.rglob("*") if file.is_file()}
    refused(capsys, run, "--output", run / name, words=f"is a name for files of the run {run}")
    assert {file: file.read_bytes() for file in run.rglob("*") if file.is_file()} == before
    assert report(run, "--output", run / PAGE) == 0


def test_long_names(run, tmp_path, capsys):
    refused(capsys, run, "--output", tmp_path / ("x" * 300), words="cannot be written: File name too long")
    assert report(f"{'x' * 300}={run}", "--output", tmp_path / PAGE) == 0


def test_nothing_is_written_where_one_file_cannot_be(run, tmp_path, capsys, monkeypatch):
    def opened(file, mode):
        if str(file).endswith("1.tmp"):
            raise OSError(28, "No space left")
        return open(file, mode)
    monkeypatch.setattr("lighthouse_report.output.open", opened, raising=False)
    refused(capsys, run, "--output", tmp_path / PAGE, "--svg", tmp_path / SVG, words="page.svg: cannot be written: No space left")
    assert not list(tmp_path.iterdir())


# Names.

def command(*arguments, cwd):
    """A process of its own: what cannot be drawn aborts it."""
    return subprocess.run([sys.executable, "-m", "lighthouse_report", *arguments], cwd=cwd, capture_output=True, timeout=120)


@pytest.mark.parametrize("name", [b"a\x01\x1b[31mb\x0c", b"a\xef\xbf\xbeb", b"bad \xff\xfe utf-8"],
                         ids=["control", "no character", "no UTF-8"])
def test_names_that_cannot_be_drawn(tmp_path, name):
    run = make_run(tmp_path, "run", steps=20, evaluated=False).rename(tmp_path / os.fsdecode(name))
    arguments = ["--output", PAGE, "--svg", SVG, "--png", PNG, "--baseline", name]
    if name.isascii():
        arguments += ["--title", name]
    done = command(name + b"=" + os.fsencode(run), *arguments, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, b"")
    assert "�" in (tmp_path / PAGE).read_text() and "�" in (tmp_path / SVG).read_text()
    done = command(b"no" + name, "--output", PAGE, cwd=tmp_path)
    assert done.returncode == 2 and done.stderr.count(b"\n") == 1 and b"no such run folder" in done.stderr
    assert not set(done.stderr) & set(b"\x01\x1b\x0c")


# Values.

LARGE = "1" * 401


@pytest.mark.parametrize("value", ["1e308", LARGE, "9" * 5000, "1e100"])
@pytest.mark.parametrize("key", ["step", "loss", "grad_norm", "tokens", "tokens_per_s", "time", "train_seconds", "peak_memory",
                                 "validation_loss"])
def test_huge_numbers(tmp_path, capsys, key, value):
    run = make_run(tmp_path, "dense", steps=20)
    (run / "eval.json").unlink()
    metrics = run / "metrics.jsonl"
    lines = metrics.read_text().splitlines()
    record = {**json.loads(lines[-1]), key: 12345.5}
    metrics.write_text("\n".join([*lines[:-1], json.dumps(record).replace("12345.5", value)]) + "\n")
    if value == "1e100" and key in ("loss", "grad_norm", "validation_loss"):
        assert report(run, "--output", tmp_path / PAGE, "--svg", tmp_path / SVG) == 0, "what is large is drawn"
    else:
        refused(capsys, run, "--output", tmp_path / PAGE, words="metrics.jsonl:20: damaged: ")


@pytest.mark.parametrize(("before", "after", "words"), [
    ('"step": 7,', '"step": 7.0,', "step is 7.0"), ('"step": 7,', '"step": -7,', "step is -7"),
    ('"step": 7,', '"step": 1000000000000001,', "must be an integer from 1 to 1000000000000000"),
    ('"stage": 2', '"stage": true', "stage is True"), ('"tokens": 458752', '"tokens": -1', "tokens is -1"),
    ('"tokens": 458752', '"token": 1', "tokens is missing"), ('"tokens": 458752', '"tokens": null', "tokens is None"),
    ('"tokens": 458752', '"tokens": 458752, "time": -1', "time is -1"),
    ('"tokens": 458752', '"tokens": 458752, "loss": -1', "loss is -1"),
    ('"tokens": 458752', '"tokens": 458752, "validation_loss": "2.5"', "validation_loss is '2.5'; must be a number"),
    ('"tokens": 458752', '"tokens": 458752, "spike": 3', "spike is 3; must be a text"),
    ('"tokens": 458752', '"tokens": 458752, "sources": 3', "sources is 3; must be an object")])
def test_impossible_metrics(tmp_path, capsys, before, after, words):
    run = make_run(tmp_path, "dense", steps=10, evaluated=False)
    metrics = run / "metrics.jsonl"
    lines = [line.replace('"time"', '"clock"') for line in metrics.read_text().splitlines()]
    assert before in lines[6]
    lines[6] = lines[6].replace(before, after)
    metrics.write_text("\n".join(lines) + "\n")
    refused(capsys, run, "--output", tmp_path / PAGE, words=words, place="metrics.jsonl:7: damaged: ")


@pytest.mark.parametrize(("change", "words"), [
    (lambda found: found.update(step=41), "step is 41; must be an integer from 0 to 40"),
    (lambda found: found.update(seq_len="long"), "seq_len is 'long'"),
    (lambda found: found.update(tasks=[]), "tasks is []; must be an object"),
    (lambda found: found.pop("tasks"), "tasks is missing"),
    (lambda found: found.update(corpus="mine"), "corpus is 'mine'"),
    (lambda found: found.update(validation_loss="2.5"), "validation_loss is '2.5'"),
    (lambda found: found["tasks"].update(passkey=3), "passkey is 3; must be an object"),
    (lambda found: found["tasks"].update(position={"dense": {"begin": 3}}), "position is {'begin': 3}; must be a list"),
    (lambda found: found["tasks"]["loss"].update(dense=[3]), "loss of an attention is [3]"),
    (lambda found: found["tasks"]["loss"]["dense"].update(loss=10**400), "loss is 1000"),
    (lambda found: found["tasks"]["loss"]["dense"].update(sequences=[{"index": [], "loss": 1}]), "index is []"),
    (lambda found: found["tasks"]["position"]["dense"][1].update(end=64), "end is 64"),
    (lambda found: found["tasks"]["position"]["dense"][1].update(begin=-1), "begin is -1"),
    (lambda found: found["tasks"]["passkey"]["cells"][0].update(correct=11), "correct is 11; must be an integer from 0 to 10"),
    (lambda found: found["tasks"]["passkey"]["cells"][0].update(trials=0), "trials is 0"),
    (lambda found: found["tasks"]["multikey"]["cells"][0].update(trials=-10, correct=-11), "trials is -10"),
    (lambda found: found["tasks"]["multikey"]["cells"][0].update(accuracy="good"), "accuracy is 'good'"),
    (lambda found: found["tasks"]["multikey"]["cells"][0].update(depth=1.5), "depth is 1.5"),
    (lambda found: found["tasks"]["copy"]["cells"][0].update(distance=0), "distance is 0"),
    (lambda found: found["tasks"]["copy"]["cells"][0].update(standard_error=-1), "standard_error is -1"),
    (lambda found: found["tasks"]["context"].update(difference="far"), "difference is 'far'")])
def test_impossible_results_of_eval(tmp_path, capsys, change, words):
    run = make_run(tmp_path, "dense", steps=40)
    change_results(run, change)
    refused(capsys, run, "--output", tmp_path / PAGE, words=words, place="eval.json: not what `lighthouse eval --json` writes: ")


@pytest.mark.parametrize(("file", "content", "words"), [
    ("run.json", '{"corpus": 3}', "run.json: damaged: corpus is 3; must be an object"),
    ("run.json", '{"corpus": {"content": ["a"]}}', "content is ['a']; must be a text"),
    ("run.json", '{"device": 3}', "device is 3"), ("run.json", '{"changes": {}}', "changes is {}"),
    (STATE, '{"corpus": "x"}', "state.json: damaged: corpus is 'x'"),
    (STATE, '{"device": "cpu", "threads": "all"}', "threads is 'all'")])
def test_impossible_descriptions(tmp_path, capsys, file, content, words):
    run = make_run(tmp_path, "dense", steps=40)
    (run / file).write_text(content)
    refused(capsys, run, "--output", tmp_path / PAGE, words=words)


@pytest.mark.parametrize(("after", "words"), [
    (f"steps = {LARGE}", "training.steps is 1111"), ("lighthouse_steps = -1\nsteps = 40", "training.lighthouse_steps is -1"),
    ("steps = " + "9" * 5000, "config.toml: damaged: a number of too many digits")])
def test_impossible_configurations(tmp_path, capsys, after, words):
    run = make_run(tmp_path, "dense", steps=40)
    edit(run / "config.toml", "steps = 40", after)
    if "lighthouse" in after:
        edit(run / "config.toml", "\nlighthouse_steps = 0", "")
    refused(capsys, run, "--output", tmp_path / PAGE, words=words)


def test_a_loss_of_nothing(tmp_path):
    made = [make_run(tmp_path, "a", steps=20, evaluated=False),
            make_run(tmp_path, "b", steps=20, evaluated=False, lighthouse_steps=10)]
    for each in made:
        lines = [json.loads(line) for line in (each / "metrics.jsonl").read_text().splitlines()]
        (each / "metrics.jsonl").write_text("".join(json.dumps(
            {key: 0 if "loss" in key else value for key, value in line.items()} | {"train_seconds": 1e-300}) + "\n"
            for line in lines))
    assert report(*made, "--output", tmp_path / PAGE, "--svg", tmp_path / SVG) == 0


# Results of eval beside each other.

EVALUATED = ("Loss by position in the sequence", "Copying a random hex string over a distance", "Passkey: a digit hidden in text",
             "Multikey: the digit of one key of several")


def change_results(run, change, name="eval.json"):
    found = json.loads((run / "eval.json").read_text())
    change(found)
    (run / name).write_text(json.dumps(found))


def arms_in(chart):
    return {row["arm"] for row in rows_of(chart) if "arm" in row}


def test_results_of_earlier_steps_are_left_out(copy):  # noqa: F811
    for seed in (1, 2, 3):
        change_results(copy / f"two-stage-{seed}", lambda found: found.update(step=200))
    found = charts(draw(*runs_of(copy)))
    for title in EVALUATED:
        assert arms_in(found[title]) == {"dense"}, title
        assert found[title]["title"]["subtitle"][1:] == [
            "Left out, of other steps: two-stage-1 (step 200), two-stage-2 (step 200), two-stage-3 (step 200)"]
    losses = found["Final loss, nats per token, with 95 % intervals over seeds"]
    assert any("Far context: Left out" in line for line in losses["title"]["subtitle"])


def test_results_of_runs_in_progress(tmp_path):
    made = [make_run(tmp_path, f"dense-{seed}", seed, steps=40) for seed in (1, 2)]
    for each, step in zip(made, (20, 30)):
        change_results(each, lambda found: found.update(step=step))
    found = charts(draw(*made))[EVALUATED[0]]
    assert found["title"]["subtitle"][1:] == ["After step 30: there are none of the end of a run",
                                              "Left out, of other steps: dense-1 (step 20)"]


def test_other_lengths_are_told(copy):  # noqa: F811
    for seed in (1, 2, 3):
        change_results(copy / f"two-stage-{seed}", lambda found: found.update(seq_len=4096))
    found = charts(draw(*runs_of(copy)))
    for title in EVALUATED:
        assert found[title]["title"]["subtitle"][1] == "Sequence lengths differ: 4,096 of two-stage 62.5 %; 32,768 of dense", title


@pytest.mark.parametrize("name", ["eval-0.json", "eval.2.json"], ids=["a name before", "a name after"])
def test_the_choice_of_results_does_not_hang_on_names(tmp_path, capsys, name):
    run = make_run(tmp_path, "dense", steps=40)
    own = read_run(run).evaluation

    def other(found):
        found["seq_len"] = 65536
        for bucket in found["tasks"]["position"]["dense"]:
            bucket["loss"] = 9
    change_results(run, other, name)
    assert read_run(run).evaluation.positions == own.positions, "that of another length"

    def fewer(found):
        found["corpus"]["sequences"] = 8
        found["tasks"]["loss"]["dense"]["loss"] = 9
        for cell in found["tasks"]["passkey"]["cells"]:
            cell.update(correct=0, trials=2)
    change_results(run, fewer, name)
    found = read_run(run).evaluation
    assert (found.losses, found.retrieval) == (own.losses, own.retrieval), "the smaller one"
    change_results(run, lambda found: None, name)
    assert read_run(run).evaluation.losses == own.losses, "equal ones"
    change_results(run, lambda found: found["tasks"]["passkey"]["cells"][0].update(correct=0), name)
    refused(capsys, run, "--output", tmp_path / PAGE, words="different results of passkey after step 40, and nothing says which")

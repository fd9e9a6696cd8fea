"""The plan of runs and what makes them (experiments/two_stage), with a stand-in for the trainer."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "experiments/two_stage"
sys.path.insert(0, str(FOLDER))
import plan  # noqa: E402

# Trains until the file `go` is there or a signal comes; `fail` makes it fail.
PROGRAM = """#!/usr/bin/env python3
import pathlib, signal, sys, time
here = pathlib.Path(__file__).parent
if sys.argv[1] == "eval":
    print('{"validation_loss": 1.5}')
    sys.exit(0)
folder = pathlib.Path(sys.argv[sys.argv.index("--logging.run_dir") + 1])
folder.mkdir(parents=True, exist_ok=True)
(folder / "config.toml").write_text("")
rate = float(sys.argv[sys.argv.index("--optimizer.learning_rate") + 1])
with (folder / "metrics.jsonl").open("a") as out:
    out.write('{"step": 1, "validation_loss": %g}\\n' % abs(rate - 0.0031))
if (here / "fail").exists():
    print("lighthouse train: no")
    sys.exit(1)
signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
while not (here / "go").exists():
    time.sleep(0.01)
"""


@pytest.fixture
def make(tmp_path):
    program = tmp_path / "lighthouse"
    program.write_text(PROGRAM)
    program.chmod(0o755)
    for name in ("corpus/train", "corpus/heldout"):
        (tmp_path / name).mkdir(parents=True)

    def call(*options, code=0):
        command = [sys.executable, FOLDER / "run.py", "--program", program, "--corpus", tmp_path / "corpus", "--results",
                   tmp_path / "results", "--work", tmp_path / "work", *options]
        done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=60,
                              env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


def all_runs():
    return [run for job in plan.jobs() for run in job] + [plan.rate_run("a", rate) for rate in plan.RATES]


def test_runs_have_names_of_their_own_and_arms_share_all_but_what_they_are_about():
    runs = all_runs()
    assert len({run.name for run in runs}) == len(runs)
    for ladder, num_seeds in plan.SEEDS.items():
        pairs = plan.main_pairs(ladder)
        assert len(pairs) == num_seeds
        for first, second in pairs:
            assert {first.arm, second.arm} == {"dense", "two-stage"} and first.seed == second.seed
            differing = {key for key in first.options if first.options[key] != second.options[key]}
            assert differing == {"training.lighthouse_steps"}
            assert first.options["training.seed"] == first.options["data.seed"] == first.seed
    shares = {run.arm: run.options["training.lighthouse_steps"] / run.options["training.steps"] for run in runs}
    assert shares["dense"] == 0 and shares["two-stage"] == 0.625
    assert shares["split-50"] == 0.5 and shares["split-75"] == pytest.approx(0.75, abs=1e-3)
    assert plan.RATE_SEED > max(plan.SEEDS.values())


@pytest.mark.parametrize(("ladder", "arms"), [("a2", plan.CONTROLS | plan.FIRST_ABLATIONS), ("b", plan.B_CONTROLS)])
def test_controls_come_right_after_the_main_pairs_of_their_ladder(ladder, arms):
    names = [run.name for job in plan.jobs() for run in job]
    first = 1 + max(names.index(run.name) for pair in plan.main_pairs(ladder) for run in pair)
    controls = [f"{ladder}-{arm}-s{seed}" for arm in arms for seed in (1, 2)]
    assert names[first:first + len(controls)] == controls


def test_ladder_e_has_all_arms_of_two_seeds_before_the_others():
    names = [run.name for job in plan.far_jobs() for run in job]
    arms = ("dense", "two-stage", "window", "short", "window-layers")
    for half, seeds in ((names[:10], (1, 2)), (names[10:20], (3, 4))):
        assert set(half) == {f"e-{arm}-s{seed}" for arm in arms for seed in seeds}
    assert len(names) == 20


def test_the_paper_s_length_comes_before_mixtures_and_ablations_each_seed_with_its_control():
    names = [run.name for job in plan.jobs() for run in job]
    length = [run.name for job in plan.long_jobs() for run in job]
    assert set(length[:3]) == {f"c-{arm}-s1" for arm in ("dense", "two-stage", "short")}
    assert set(length[3:6]) == {f"c-{arm}-s2" for arm in ("dense", "two-stage", "short")}
    assert set(length[6:9]) == {f"d-{arm}-s1" for arm in ("dense", "two-stage", "short")}
    assert length[9:11] == ["c-window-layers-s1", "c-window-layers-s2"]
    assert length[11:20] == [f"c-{arm}-s{seed}" for seed in (3, 4, 5) for arm in ("window-layers", "short", "two-stage")]
    assert length[20:] == [*(f"c-window-s{seed}" for seed in (3, 4, 5, 1, 2)), "d-window-layers-s1"]
    first, last = names.index(length[0]), names.index(length[-1])
    assert names[first:last + 1] == length
    assert names[last + 1:last + 7] == [f"e-{arm}-s{seed}" for arm in plan.E_MIXTURES for seed in (1, 2)]


def test_ladder_e_differs_from_a2_in_its_text_and_theta():
    one, other = (plan.make_run(ladder, "dense", 1, plan.DENSE).options for ladder in ("e", "a2"))
    assert {key for key in one if one[key] != other[key]} == {"model.rope_theta"}
    assert plan.LADDERS["e"].corpus != plan.LADDERS["a2"].corpus


@pytest.mark.parametrize("name", ["c", "d"])
def test_short_sequences_are_an_eighth_at_the_paper_s_length_too(name):
    assert plan.C_CONTROLS["short"]["attention.span"] == plan.LADDERS[name].seq_len // 8


def rows_of(ladder):
    """Of the two-stage arm: N / F + (L - 1) p k."""
    return ladder.seq_len // 16 + 2 * 4 * ladder.seq_len // 64


def test_windows_between_layers_have_as_many_pairs_as_lighthouse_at_the_paper_s_length():
    ladder, window = plan.LADDERS["c"], plan.C_WINDOW_LAYERS["window-layers"]
    assert ladder.seq_len * window["attention.span"] == rows_of(ladder)**2 // 2
    assert window["attention.window_layers"] == ",".join(map(str, range(0, ladder.layers, 2)))
    assert plan.C_WINDOW["window"]["attention.span"] == window["attention.span"]
    assert plan.D_WINDOW_LAYERS["window-layers"]["attention.span"] == window["attention.span"]


@pytest.mark.parametrize(("name", "controls"), [("a2", plan.CONTROLS), ("b", plan.B_CONTROLS), ("e", plan.E_CONTROLS)])
def test_the_window_has_as_many_pairs_as_the_rows_of_the_two_stage_arm(name, controls):
    ladder = plan.LADDERS[name]
    assert ladder.seq_len * controls["window"]["attention.span"] == rows_of(ladder)**2 // 2
    assert controls["short"]["attention.span"] == ladder.seq_len // 8


def test_window_layers_have_the_window_of_the_control():
    layers = plan.WINDOW_LAYERS["window-layers"]
    assert layers["attention.span"] == plan.CONTROLS["window"]["attention.span"]
    assert [int(layer) for layer in layers["attention.window_layers"].split(",")] == list(range(0, plan.LADDERS["a2"].layers, 2))


def test_a_control_of_equal_total_time_has_the_share_of_the_steps_that_takes_it():
    control = plan.make_run("a2", "dense-fewer", 1, plan.CONTROLS["dense-fewer"]).options
    dense = plan.make_run("a2", "dense", 1, plan.DENSE).options
    assert control["training.steps"] == round(plan.TIME_SHARE * dense["training.steps"])
    assert {key for key in dense if dense[key] != control[key]} == {"training.steps"}


def test_the_rate_is_the_best_of_three_or_of_one_more_where_the_best_is_at_an_end():
    assert plan.rates({}) == plan.rates({1e-3: 1.0}) == (1e-3, 2e-3, 4e-3)
    assert plan.rates({1e-3: 1.2, 2e-3: 1.0, 4e-3: 1.1}) == (1e-3, 2e-3, 4e-3)
    assert plan.rates({1e-3: 1.0, 2e-3: 1.1, 4e-3: 1.2}) == (5e-4, 1e-3, 2e-3, 4e-3)
    assert plan.rates({1e-3: 1.2, 2e-3: 1.1, 4e-3: 1.0}) == (1e-3, 2e-3, 4e-3, 8e-3)
    assert plan.rates({1e-3: 1.2, 2e-3: 1.1, 4e-3: 1.0, 8e-3: 0.9}) == (1e-3, 2e-3, 4e-3, 8e-3)


def test_lighthouse_helps_or_hurts_before_it_is_said_not_to_help():
    import summarize

    for differences, verdict in (([-0.3, -0.31], "helps"), ([0.3, 0.31], "hurts"), ([-0.001, 0.001, 0.0], "does not help"),
                                 ([-0.001, -0.0011], "helps"), ([0.001, 0.0011], "hurts"), ([-0.3, 0.3], "not decided")):
        assert summarize.control_verdict(differences, base=1.0) == verdict


def test_every_option_is_a_key_of_the_trainer(lighthouse):
    keys = subprocess.run([lighthouse, "train", "--print-config"], capture_output=True, text=True, check=True).stdout
    for run in all_runs():
        for key in run.options:
            assert f"\n{key.split('.')[1]} = " in keys, key


def test_a_run_is_made_once_and_goes_on_where_the_time_ended_it(make, tmp_path):
    only = ("--only", "d-dense-s1")
    assert "d-dense-s1 is saved and goes on" in make(*only, "--minutes", "0.01")
    assert not list(tmp_path.glob("results/*"))
    (tmp_path / "go").touch()
    assert "1 of 1 runs are made" in make(*only)
    result = tmp_path / "results/d-dense-s1"
    assert json.loads((result / "eval.json").read_text()) == {"validation_loss": 1.5}
    assert len((result / "metrics.jsonl").read_text().splitlines()) == 2, "the same folder both times"
    record = json.loads((result / "record.json").read_text())
    assert (record["arm"], record["seed"], record["exit_code"]) == ("dense", 1, 0)
    assert "--training.lighthouse_steps 0 " in record["command"] and str(tmp_path) not in record["command"]
    (tmp_path / "go").unlink()
    assert "1 of 1 runs are made" in make(*only), "not once more"
    assert "done" in make(*only, "--list")


def test_a_run_that_fails_is_listed_with_what_it_said(make, tmp_path):
    (tmp_path / "fail").touch()
    assert "failed with exit code 1" in make("--only", "d-dense-s1")
    record = json.loads((tmp_path / "results/d-dense-s1/record.json").read_text())
    assert record["exit_code"] == 1 and "lighthouse train: no" in record["messages"]
    assert not (tmp_path / "results/d-dense-s1/eval.json").exists()


def test_what_is_missing_is_said(make, tmp_path):
    assert "no run is named like 'z-*'" in make("--only", "z-*", code=1)
    assert "1 of them wait for runs that have no record in " in make("--only", "c-dense-s1"), "of the ladder's rate"
    (tmp_path / "corpus/heldout").rmdir()
    assert "heldout' is missing" in make("--only", "d-*", code=1)


def test_each_ladder_reads_its_corpus_unless_one_is_named(make, tmp_path):
    def corpora(*options):
        return make("--list-corpora", *options).split()

    assert corpora() == ["llvm-releases", "two_stage"]
    assert corpora("--only", "e-*") == ["llvm-releases"] and corpora("--only", "[ab]*") == ["two_stage"]
    (tmp_path / "go").touch()
    make("--only", "e-rate-*", "--minutes", "0.1")
    command = json.loads((tmp_path / "results/e-rate-0.001-s100/record.json").read_text())["command"]
    assert "--data.path .corpus/llvm-releases/train " in command and "--model.rope_theta 500000.0 " in command


def test_cards_share_the_jobs_and_wait_for_the_rate(make, tmp_path):
    (tmp_path / "go").touch()
    assert "14 of 14 runs are made" in make("--only", "b-*", "--cards", "2")  # the best rate is the last: one more
    for arm in ("dense", "two-stage"):
        command = json.loads((tmp_path / f"results/b-{arm}-s3/record.json").read_text())["command"]
        assert "--optimizer.learning_rate 0.004 " in command
    assert (tmp_path / "results/b-rate-0.008-s100").exists() and not (tmp_path / "results/b-rate-0.0005-s100").exists()

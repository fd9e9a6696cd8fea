"""Training as a user meets it: logs that TensorBoard reads, signals, resuming, one process a folder, SIGKILL."""

import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import LIGHTHOUSE, ROOT
from safetensors.numpy import load_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import RawEventFileLoader
from tensorboard.compat.proto.event_pb2 import Event, SessionLog

sys.path.insert(0, str(ROOT / "tests"))
import kill_resume  # noqa: E402

pytestmark = pytest.mark.usefixtures("lighthouse")
TINY = {"model.dim": 32, "model.num_layers": 2, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 16,
        "model.ffn_dim": 48, "attention.topk": 4, "training.seq_len": 64, "training.steps": 20,
        "training.lighthouse_steps": 12, "training.batch_size": 4, "training.device": "cpu", "training.threads": 2,
        "optimizer.warmup_steps": 3, "validation.interval": 5, "validation.sequences": 2, "checkpoint.interval": 4,
        "logging.sample_tokens": 0}
PARTS = ("attention", "matmul", "other", "optimizer", "data")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    words = kill_resume.WORDS
    order = np.random.default_rng(1).integers(len(words), size=20000)
    path.write_text(" ".join(words[index] for index in order))
    return path


def command(corpus, run, *options, **keys):
    values = TINY | {"data.path": corpus, "logging.run_dir": run} | {
        key.replace("__", "."): value for key, value in keys.items()}
    return [LIGHTHOUSE, "train", *options,
            *(text for key, value in values.items() for text in (f"--{key}", str(value)))]


def train(corpus, run, *options, **keys):
    return subprocess.run(command(corpus, run, *options, **keys), capture_output=True, text=True, timeout=300)


def train_well(corpus, run, **keys):
    result = train(corpus, run, **keys)
    assert result.returncode == 0, result.stderr
    return result.stderr


def start_and_wait(corpus, run, step, **keys):
    """A run in progress, at least `step` steps done."""
    process = subprocess.Popen(command(corpus, run, **keys), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while kill_resume.last_step(run) < step:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.002)
    return process


def read_scalars(run):
    accumulator = EventAccumulator(str(run))
    accumulator.Reload()
    return {tag: [(event.step, event.value) for event in accumulator.Scalars(tag)]
            for tag in accumulator.Tags()["scalars"]}


def expected_scalars(run):
    names = {"loss": "train/loss", "learning_rate": "train/learning_rate", "grad_norm": "train/grad_norm",
             "tokens_per_s": "train/tokens_per_s", "stage": "train/stage", "validation_loss": "validation/loss",
             "validation_loss_lighthouse": "validation/loss_lighthouse"}
    lines = kill_resume.read_lines(run)
    parts = {f"parts/{part}": [(line["step"], np.float32(line["parts"][part])) for line in lines if "parts" in line]
             for part in PARTS}
    return parts | {tag: [(line["step"], np.float32(line[name])) for line in lines if name in line]
                    for name, tag in names.items()}


def test_tensorboard_reads_every_number(corpus, tmp_path):
    run = tmp_path / "run"
    train_well(corpus, run)
    assert read_scalars(run) == expected_scalars(run)
    [path] = run.glob("events.out.tfevents.*")
    events = [Event.FromString(bytes(raw)) for raw in RawEventFileLoader(str(path)).Load()]
    assert events[0].file_version == "brain.Event:2"
    assert (events[1].session_log.status, events[1].step) == (SessionLog.START, 1)
    assert len(events) == 2 + 20
    now = time.time()
    assert all(now - 300 < event.wall_time <= now for event in events)


def test_tensorboard_forgets_steps_that_are_run_again(corpus, tmp_path):
    run = tmp_path / "run"
    process = start_and_wait(corpus, run, 6, training__steps=400)
    process.kill()
    process.wait()
    time.sleep(1.1 - time.time() % 1)  # event files are sorted by the second
    process = start_and_wait(corpus, run, 12, training__steps=400)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert len(list(run.glob("events.out.tfevents.*"))) == 2
    assert read_scalars(run) == expected_scalars(run)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_signal_saves_and_the_run_goes_on_with_the_same_bits(corpus, tmp_path, number):
    unbroken, run = tmp_path / "unbroken", tmp_path / "run"
    train_well(corpus, unbroken, training__steps=150, training__lighthouse_steps=40)
    process = start_and_wait(corpus, run, 17, training__steps=150, training__lighthouse_steps=40)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    stopped = kill_resume.last_step(run)
    assert 17 <= stopped < 150, "the machine is too fast for this test"
    assert kill_resume.checkpoint_step(run) == stopped
    assert f"stopped by {number.name} after step {stopped}" in errors
    errors = train_well(corpus, run, training__steps=150, training__lighthouse_steps=40)
    assert f"resumed at step {stopped}\n" in errors
    kill_resume.check_same(run, unbroken)


def test_two_processes_never_train_in_one_folder(corpus, tmp_path):
    run = tmp_path / "run"
    first = start_and_wait(corpus, run, 2, training__steps=100000)
    try:
        second = train(corpus, run, training__steps=100000)
        assert second.returncode == 1
        assert f"process {first.pid} trains in this run folder" in second.stderr
        assert first.poll() is None
    finally:
        first.kill()
        first.communicate()


def test_another_configuration_is_refused(corpus, tmp_path):
    run = tmp_path / "run"
    train_well(corpus, run)
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"}
    result = train(corpus, run, model__dim=64, optimizer__beta2=0.99)
    assert result.returncode == 2
    assert "model.dim (32 in the checkpoint, 64 now), optimizer.beta2 (0.95 in the checkpoint, 0.99 now)" in result.stderr
    assert result.stdout == ""
    assert {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.name != "lock"} == before


def test_finished_run_says_so_and_stays(corpus, tmp_path):
    run = tmp_path / "run"
    train_well(corpus, run)
    before = kill_resume.read_lines(run)
    assert "all steps are done already" in train_well(corpus, run)
    assert kill_resume.read_lines(run) == before


def test_finished_run_goes_on_with_more_steps(corpus, tmp_path):
    run, copy, alone = tmp_path / "run", tmp_path / "copy", tmp_path / "alone"
    train_well(corpus, run, optimizer__schedule="constant")
    shutil.copytree(run, copy)
    text = train_well(corpus, run, optimizer__schedule="constant", training__steps=24)
    assert "goes on with other steps to come: training.steps (20 in the checkpoint, 24 now)" in text, text
    assert "resumed at step 20" in text
    train_well(corpus, alone, optimizer__schedule="constant", training__steps=24)
    train_well(corpus, copy, optimizer__schedule="constant", training__steps=24)
    name = "checkpoints/step-00000024/model.safetensors"
    assert (run / name).read_bytes() == (copy / name).read_bytes() == (alone / name).read_bytes()
    assert "steps = 24" in (run / "config.toml").read_text()
    refused = train(corpus, run, optimizer__schedule="constant", training__steps=16)
    assert refused.returncode == 2 and "24 steps are done, more than training.steps = 16" in refused.stderr


def test_checkpoint_is_plain_safetensors(corpus, tmp_path):
    run = tmp_path / "run"
    train_well(corpus, run)
    newest = sorted(run.glob("checkpoints/step-*"))[-1]
    model = load_file(newest / "model.safetensors")
    optimizer = load_file(newest / "optimizer.safetensors")
    assert model["model.embed_tokens.weight"].shape == (256, 32)
    assert optimizer.pop("step") == 20
    assert set(optimizer) == {f"{name}.{moment}" for name in model for moment in ("exp_avg", "exp_avg_sq")}
    assert not list(newest.glob("*.p*"))  # no pickle


def test_log_has_plain_lines(corpus, tmp_path):
    errors = train_well(corpus, tmp_path / "run")
    assert "\r" not in errors and "\033" not in errors
    for part in ("run folder", "20 steps, 12 with Lighthouse attention, then 8 dense", "step 12: switch to dense attention",
                 "step 13: first with dense attention", "done: 20 steps"):
        assert part in errors


def test_terminal_has_a_progress_bar(corpus, tmp_path):
    ours, theirs = pty.openpty()
    process = subprocess.Popen(command(corpus, tmp_path / "run"), stdout=subprocess.DEVNULL, stderr=theirs)
    os.close(theirs)
    text = b""
    try:
        while part := os.read(ours, 65536):
            text += part
    except OSError:  # the other end was closed
        pass
    os.close(ours)
    assert process.wait(timeout=60) == 0
    bars = [bar for bar in text.decode().replace("\n", "\r").split("\r") if "tokens/s" in bar and "ETA" in bar]
    assert len(bars) >= 2
    for bar in bars:
        assert bar.startswith("\033[K")
        assert len(bar.removeprefix("\033[K")) <= 79
    assert "stage 2 dense 20/20 [" in bars[-1]


def test_metrics_are_one_object_a_step(corpus, tmp_path):
    run = tmp_path / "run"
    train_well(corpus, run, logging__interval=3)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    # Every third, validations (every fifth and the ends of the stages), and what the switch tracker noticed.
    steps = [line["step"] for line in lines]
    assert steps == sorted(set(steps))
    assert {3, 5, 6, 9, 10, 12, 13, 15, 18, 20} <= set(steps)
    assert {"step", "stage", "loss", "learning_rate", "grad_norm", "tokens", "tokens_per_s", "time"} <= set(lines[0])


def test_time_is_measured_by_part(corpus, tmp_path):
    run = tmp_path / "run"
    result = train(corpus, run, logging__timing_interval=5, logging__interval=3)
    assert result.returncode == 0, result.stderr
    measured = {line["step"]: line for line in kill_resume.read_lines(run) if "parts" in line}
    assert sorted(measured) == [5, 10, 15, 20]
    for line in measured.values():
        assert tuple(line["parts"]) == PARTS
        # What is left of the step is a few calls around the clock.
        assert 0.8 * 4 * 64 / line["tokens_per_s"] < sum(line["parts"].values()) <= 4 * 64 / line["tokens_per_s"]
        assert "peak_memory" not in line  # the CPU's allocator counts nothing
    header, *stages = result.stdout.split("\n\n")[1].splitlines()
    assert header.split()[-8:] == ["tokens/s", "mfu", "memory", *PARTS]
    assert [stage.split()[:3] for stage in stages] == [["stage", "1", "lighthouse"], ["stage", "2", "dense"]]
    assert sum(float(share.rstrip("%")) for share in stages[0].split()[-5:]) == pytest.approx(100, abs=0.3)
    train_well(corpus, tmp_path / "never", logging__timing_interval=0)
    assert not any("parts" in line for line in kill_resume.read_lines(tmp_path / "never"))


def trace_of(path):
    events = json.loads(path.read_text())["traceEvents"]
    return [event["name"] for event in events if event.get("cat") == "cpu_op"]


def test_profile_is_a_trace_of_the_steps(corpus, tmp_path):
    path = tmp_path / "trace.json"
    result = train(corpus, tmp_path / "run", "--profile", path)
    assert result.returncode == 0, result.stderr
    assert f"trace of 3 steps written to {path}" in result.stderr
    names = trace_of(path)
    assert {"aten::mm", "aten::_fused_adamw_"} <= set(names)
    assert names.count("aten::_foreach_norm") == 3  # the gradient norm, once a step
    one = tmp_path / "one.json"
    assert train(corpus, tmp_path / "again", "--profile", one, "--profile-steps", "20:20").returncode == 0
    assert train(corpus, tmp_path / "again", "--profile", path).returncode == 0  # queued again: a trace is replaced
    assert trace_of(one).count("aten::_foreach_norm") == 1
    assert sorted(tmp_path.glob("*.json")) == [one, path] and not list(tmp_path.glob(".lighthouse-tmp-*"))


def test_profile_that_cannot_be_made_is_refused_or_told(corpus, tmp_path):
    for steps in ("5", "5:4", "0:3", "a:b", "3:4x"):
        result = train(corpus, tmp_path / "run", "--profile", tmp_path / "trace.json", "--profile-steps", steps)
        assert result.returncode == 2 and f"--profile-steps {steps}: must be" in result.stderr
    result = train(corpus, tmp_path / "run", "--profile-steps", "2:3")
    assert result.returncode == 2 and "give --profile FILE" in result.stderr
    result = train(corpus, tmp_path / "run", "--profile", tmp_path / "absent" / "trace.json")
    assert result.returncode == 2 and "there is no folder" in result.stderr
    (tmp_path / "mine.txt").write_text("mine")
    result = train(corpus, tmp_path / "run", "--profile", tmp_path / "mine.txt")
    assert result.returncode == 2 and f"--profile {tmp_path}/mine.txt: is there already; choose another name" in result.stderr
    assert (tmp_path / "mine.txt").read_text() == "mine"
    for path, words in (tmp_path, "is there and not a file"), (f"{tmp_path}/new/", "must be the name of a file"):
        result = train(corpus, tmp_path / "run", "--profile", path)
        assert result.returncode == 2 and f"--profile {path}: {words}" in result.stderr
    assert not (tmp_path / "run").exists()
    result = train(corpus, tmp_path / "run", "--profile", tmp_path / "trace.json", "--profile-steps", "90:95")
    assert result.returncode == 0 and "did not reach step 90" in result.stderr
    assert not list(tmp_path.glob("trace.json")) + list(tmp_path.glob(".lighthouse-tmp-*"))


def test_killed_at_random_moments(tmp_path):
    kill_resume.run_experiment(LIGHTHOUSE, tmp_path, kills=8, seed=3)

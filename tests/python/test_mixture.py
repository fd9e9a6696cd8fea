"""data.mixture in runs: losses and epochs by corpus, a resumed run, several processes, refusals."""

import json
import shutil
import subprocess

import numpy as np
import pytest

OPTIONS = {"model.dim": 32, "model.num_layers": 1, "model.num_heads": 2, "model.num_kv_heads": 1, "model.head_dim": 16,
           "model.ffn_dim": 48, "attention.topk": 4, "attention.tile_topk": 2, "training.seq_len": 64, "training.steps": 12,
           "training.lighthouse_steps": 8, "training.batch_size": 2, "training.gradient_accumulation": 4,
           "training.device": "cpu", "training.threads": 1, "optimizer.learning_rate": 1e-2, "optimizer.warmup_steps": 0,
           "validation.interval": 0, "checkpoint.interval": 4, "checkpoint.keep": 9, "logging.tensorboard": "false",
           "logging.sample_tokens": 0}


def train(program, corpora, run, launch=(), **options):
    options = OPTIONS | {"data.mixture": corpora, "logging.run_dir": run} | options
    words = [str(text) for key, value in options.items() for text in (f"--{key}", value)]
    return subprocess.run([program, *launch, "train", *words], capture_output=True, text=True, timeout=300)


def metrics(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def corpora(tmp_path_factory):
    """Noise of 200 bytes, and of 4: their losses are far apart."""
    folder = tmp_path_factory.mktemp("corpora")
    generator = np.random.default_rng(1)
    for name, symbols, length in (("hard", 200, 6000), ("easy", 4, 2000)):
        (folder / name).write_bytes(generator.integers(symbols, size=length, dtype=np.uint8).tobytes())
    return folder


@pytest.fixture(scope="module")
def finished(lighthouse, corpora, tmp_path_factory):
    run = tmp_path_factory.mktemp("mixture") / "run"
    result = train(lighthouse, mixture(corpora), run)
    assert result.returncode == 0, result.stderr
    return run


def mixture(corpora, hard=3, easy=1):
    return f"{corpora / 'hard'}={hard},{corpora / 'easy'}={easy}"


def test_losses_and_epochs_are_logged_by_corpus(corpora, finished):
    lines = metrics(finished)
    hard, easy = str(corpora / "hard"), str(corpora / "easy")
    for line in lines:  # of 4 micro-batches 3 are of one corpus
        sources = line["sources"]
        assert line["loss"] == pytest.approx((3 * sources[hard]["loss"] + sources[easy]["loss"]) / 4, rel=1e-12)
    assert lines[-1]["sources"][easy]["loss"] < lines[-1]["sources"][hard]["loss"] - 1
    epochs = [lines[-1]["sources"][path]["epochs"] for path in (hard, easy)]
    train_sequences = [93 - 1, 31 - 1]  # of (bytes - 1) // 64, less 2 %, at least one, for validation
    assert epochs == pytest.approx([72 / train_sequences[0], 24 / train_sequences[1]])


def test_validation_losses_are_logged_by_corpus(corpora, finished):
    """Of each corpus one sequence was held out."""
    lines = metrics(finished)
    assert [line["step"] for line in lines if "validation_loss" in line] == [8, 12]
    for line in lines:
        sources = line["sources"].values()
        for key in ("validation_loss", "validation_loss_lighthouse"):
            assert [key in source for source in sources] == [key in line] * 2
            if key in line:
                assert line[key] == pytest.approx(sum(source[key] for source in sources) / 2, rel=1e-12)
    hard, easy = (lines[-1]["sources"][str(corpora / name)]["validation_loss"] for name in ("hard", "easy"))
    assert easy < hard - 1


def test_a_sample_has_losses_of_the_corpora_that_are_in_it(lighthouse, corpora, tmp_path):
    """None of a validation corpus of its own, one where one sequence is read."""
    few = {"training.steps": 2, "training.lighthouse_steps": 0}
    for number, options in enumerate([{"data.validation_path": corpora / "easy"}, {"validation.sequences": 1}]):
        result = train(lighthouse, mixture(corpora), tmp_path / f"run{number}", **few, **options)
        assert result.returncode == 0, result.stderr
        last = metrics(tmp_path / f"run{number}")[-1]
        have = [source["validation_loss"] for source in last["sources"].values() if "validation_loss" in source]
        assert have == [last["validation_loss"]] * number

def test_a_resumed_run_reads_the_same(lighthouse, corpora, finished, tmp_path):
    run = tmp_path / "run"
    shutil.copytree(finished, run)
    for step in (8, 12):
        shutil.rmtree(run / "checkpoints" / f"step-{step:08}")
    result = train(lighthouse, mixture(corpora), run)
    assert result.returncode == 0, result.stderr
    for before, after in zip(metrics(finished), metrics(run), strict=True):
        assert all(before[key] == after[key] for key in ("step", "loss", "grad_norm", "sources"))


def test_processes_share_the_losses(lighthouse, corpora, finished, tmp_path):
    for context in (1, 2):
        run = tmp_path / f"run{context}"
        result = train(lighthouse, mixture(corpora), run, ["launch", "-n", "2"], **{
            "parallel.context": context, "training.steps": 2, "training.lighthouse_steps": 0, "validation.interval": 0})
        assert result.returncode == 0, result.stderr
        alone = tmp_path / f"alone{context}"
        assert train(lighthouse, mixture(corpora), alone, **{"training.steps": 2, "training.lighthouse_steps": 0}).returncode == 0
        for one, two in zip(metrics(alone), metrics(run), strict=True):
            for path, source in one["sources"].items():
                assert two["sources"][path]["loss"] == pytest.approx(source["loss"], rel=1e-6)
                assert two["sources"][path]["epochs"] == source["epochs"]
                assert ("validation_loss" in source) == ("validation_loss" in one)
                if "validation_loss" in source:
                    assert two["sources"][path]["validation_loss"] == pytest.approx(source["validation_loss"], rel=1e-6)


def test_refusals(lighthouse, corpora, finished, tmp_path):
    def refusal(text, run=tmp_path / "run", **options):
        result = train(lighthouse, text, run, **options)
        assert result.returncode == 2 and result.stderr.count("\n") == 1, result.stderr
        return result.stderr

    assert "must be PATH=WEIGHT" in refusal(str(corpora / "hard"))
    assert "is named twice" in refusal(f"{corpora / 'hard'}=1,{corpora / 'hard'}=2")
    assert "each must be at least a 1000th" in refusal(mixture(corpora, hard=5000))
    assert "no-such" in refusal(f"{corpora / 'no-such'}=1,{corpora / 'hard'}=2")
    assert "stands in the place of data.path" in refusal(mixture(corpora), **{"data.path": corpora / "hard"})
    assert "data.mixture" in refusal(mixture(corpora, hard=2), run=finished)
    assert not (tmp_path / "run").exists()


def test_corpora_of_two_tokenizers_are_refused(lighthouse, corpora, tmp_path):
    for name, sha in (("a", "1"), ("b", "2")):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "train").write_bytes((corpora / "easy").read_bytes())
        (folder / "manifest.json").write_text(json.dumps({
            "format": "lighthouse-prepare 1", "vocab_size": 256, "data": {"train": {}},
            "made_of": {"tokenizer": {"sha256": sha}}}))
    result = train(lighthouse, f"{tmp_path / 'a' / 'train'}=1,{tmp_path / 'b' / 'train'}=1", tmp_path / "run")
    assert result.returncode == 2 and "is another than that of" in result.stderr


def test_eval_reads_all_that_was_held_out(lighthouse, finished):
    result = subprocess.run([lighthouse, "eval", "--run", finished, "--task", "loss", "--json"], capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["corpus"]["available"] == 2 and len(report["corpus"]["path"]) == 2

"""A run on a corpus with a tokenizer reads and writes text: generate, the sample at its end, an exported folder."""

import json
import os
import subprocess
import sys

import pytest
import tokenizers
import torch
import transformers

TEXT = "The lighthouse keeper lit the lamp at dusk, and the ships saw it: caf\u00e9 \u2014 na\u00efve \U0001f600. "


def command(program, *arguments, **environment):
    return subprocess.run([program, *map(str, arguments)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "LIGHTHOUSE_PYTHON": sys.executable, **environment})


@pytest.fixture(scope="module")
def trained(lighthouse, tmp_path_factory):
    """(run, export, training's result) of a few steps with a byte-level BPE of 300 tokens."""
    folder = tmp_path_factory.mktemp("tokenized")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    tokenizer.train_from_iterator([TEXT], tokenizers.trainers.BpeTrainer(
        vocab_size=300, special_tokens=["<|endoftext|>"], show_progress=False,
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.save(str(folder / "tokenizer.json"))
    (folder / "corpus.txt").write_text(TEXT * 60)
    prepared = command(sys.executable, "-m", "lighthouse_prepare", folder / "corpus.txt", "--tokenizer",
                       folder / "tokenizer.json", "--output", folder / "tokens", "--validation", "0")
    assert prepared.returncode == 0, prepared.stderr
    run = folder / "run"
    result = command(lighthouse, "train", "--data.path", folder / "tokens" / "train", "--model.vocab_size", 320, "--model.dim",
                     32, "--model.head_dim", 16, "--model.num_layers", 1, "--model.ffn_dim", 48, "--training.seq_len", 64,
                     "--training.steps", 30, "--training.lighthouse_steps", 0, "--optimizer.warmup_steps", 0,
                     "--optimizer.learning_rate", 0.02, "--training.device", "cpu", "--training.threads", 1,
                     "--logging.run_dir", run, "--logging.sample_tokens", 20, "--logging.tensorboard", "false")
    assert result.returncode == 0, result.stderr
    exported = command(lighthouse, "export", "--run", run, "--output", folder / "out")
    assert exported.returncode == 0, exported.stderr
    return run, folder / "out", result


def test_the_sample_is_text(trained):
    sample = trained[2].stdout.split("----\n")[1]
    assert sample.split()[0] in TEXT and not sample.split()[0].isdigit()


@pytest.mark.parametrize("prompt", ["The lighthouse", "caf\u00e9 \u2014 na\u00efve \U0001f600"])
def test_generated_text_is_that_of_transformers(lighthouse, trained, prompt):
    run, exported, _ = trained
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    tokens = tokenizer(prompt, return_tensors="pt")
    text = tokenizer.decode(model.generate(**tokens, max_new_tokens=30, do_sample=False)[0], skip_special_tokens=True)
    for source in (["--run", run], ["--model", exported]):
        result = command(lighthouse, "generate", *source, "--prompt", prompt, "--max-tokens", 30, "--greedy")
        assert result.returncode == 0, result.stderr
        assert result.stdout == text + "\n"


def test_numbers_are_there_on_request(lighthouse, trained):
    result = command(lighthouse, "generate", "--run", trained[0], "--prompt", "5 17", "--max-tokens", 3, "--greedy", "--numbers")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("5 17 ") and len(result.stdout.split()) == 5


def test_what_is_missing_is_said(lighthouse, trained, tmp_path):
    def generate(**environment):
        return command(lighthouse, "generate", "--run", trained[0], "--prompt", "The", **environment)

    missing = generate(LIGHTHOUSE_PYTHON=str(tmp_path / "no-python"))
    assert missing.returncode == 2 and "cannot start" in missing.stderr and "LIGHTHOUSE_PYTHON" in missing.stderr
    (tmp_path / "tokenizers.py").write_text("raise ImportError('no', name='tokenizers')")
    without = generate(PYTHONPATH=str(tmp_path))
    assert without.returncode == 2 and "has no tokenizers; pip install tokenizers" in without.stderr
    ended = generate(LIGHTHOUSE_PYTHON="true")
    assert ended.returncode == 2 and "'true' has ended" in ended.stderr
    assert all(result.stderr.count("\n") == 1 and not result.stdout for result in (missing, without, ended))


def test_a_damaged_tokenizer_does_not_cost_a_run_its_end(lighthouse, trained, tmp_path):
    """The sample of a finished run that is started again."""
    run = trained[0]
    file = run / "tokenizer" / "tokenizer.json"
    good = file.read_text()
    file.write_text(json.dumps({"version": "1.0"}))
    try:
        result = command(lighthouse, "train", "--config", run / "config.toml")
    finally:
        file.write_text(good)
    assert result.returncode == 0, result.stderr
    assert "warning: the sample is of token numbers: tokenizer: " in result.stderr
    assert result.stdout.split("----\n")[1].split()[0].isdigit()

"""A run on a corpus with a tokenizer reads and writes text: generate, the sample at its end, an exported folder."""

import json
import math
import os
import subprocess
import sys

import numpy as np
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


def evaluate(lighthouse, *arguments, **environment):
    result = command(lighthouse, "eval", *arguments, "--device", "cpu", **environment)
    assert result.returncode == 0, result.stderr
    return result


def test_losses_are_in_bits_a_byte(lighthouse, trained):
    """Bytes of the text of all targets but ends of texts, which the exported tokenizer says."""
    run, exported, _ = trained
    corpus = run.parent / "tokens" / "train"
    tokens = np.fromfile(f"{corpus}.bin", dtype="<u2")
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    for source in (["--run", run], ["--model", exported]):
        report = json.loads(evaluate(lighthouse, *source, "--data", corpus, "--seq-len", 64, "--sequences", 1000, "--attention",
                                     "dense", "--json").stdout)
        loss = report["tasks"]["loss"]["dense"]
        text = tokenizer.decode([token for token in tokens[1:loss["targets"] + 1] if token != tokenizer.eos_token_id])
        per_token = len(text.encode()) / loss["targets"]
        assert report["bytes_per_token"] == pytest.approx(per_token, rel=0.03)  # a character that is cut is three bytes
        assert loss["bits_per_byte"] == pytest.approx(loss["loss"] / math.log(2) / report["bytes_per_token"], rel=1e-9)
    assert " bits a byte" in evaluate(lighthouse, "--run", run, "--data", corpus).stdout


def test_without_the_tokenizers_library_losses_are_in_bits_a_token(lighthouse, trained, tmp_path):
    environment = {"LIGHTHOUSE_PYTHON": str(tmp_path / "no-python")}
    result = evaluate(lighthouse, "--run", trained[0], "--data", trained[0].parent / "tokens" / "train", **environment)
    assert "warning: bits a byte are not known" in result.stderr and " bits a token" in result.stdout
    refused = command(lighthouse, "eval", "--run", trained[0], "--task", "passkey", "--lengths", 512, **environment)
    assert refused.returncode == 2 and "LIGHTHOUSE_PYTHON" in refused.stderr


def test_text_is_tokenized(lighthouse, trained, tmp_path):
    """Its bytes are no tokens of the model, whatever numbers they are."""
    run, exported, _ = trained
    settings = ["--seq-len", 64, "--sequences", 1000, "--attention", "dense", "--json"]
    for source in (["--run", run], ["--model", exported]):
        loss, of_corpus = (json.loads(evaluate(lighthouse, *source, "--data", run.parent / data, *settings).stdout)
                           for data in ("corpus.txt", "tokens/train"))
        assert loss["tasks"] == of_corpus["tasks"] and loss["bytes_per_token"] == of_corpus["bytes_per_token"]
    (tmp_path / "texts").mkdir()
    for name in "ab":
        (tmp_path / "texts" / name).write_text("\ufeff" + TEXT * 4 + "<|endoftext|>")
    loss = json.loads(evaluate(lighthouse, "--model", exported, "--data", tmp_path / "texts", *settings).stdout)
    tokenizer = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    tokenizer.encode_special_tokens = True
    assert loss["corpus"]["available"] == (2 * len(tokenizer.encode(TEXT * 4 + "<|endoftext|>").ids) + 1) // 64


def refused_by(lighthouse, *arguments, **environment):
    result = command(lighthouse, *arguments, **environment)
    assert result.returncode == 2 and result.stderr.count("\n") == 1 and not result.stdout, result.stdout + result.stderr
    return result.stderr


def test_text_that_cannot_be_tokenized_is_refused(lighthouse, trained, foreign_model, tmp_path):
    run, exported, _ = trained
    text = run.parent / "corpus.txt"
    settings = ["--seq-len", 64, "--data"]
    without = refused_by(lighthouse, "eval", "--model", exported, *settings, text, LIGHTHOUSE_PYTHON=str(tmp_path / "no-python"))
    assert f"prepare '{text}' with lighthouse-prepare --tokenizer {exported}" in without
    assert "set --data to PREFIX" in refused_by(lighthouse, "eval", "--run", run, *settings, run.parent / "tokens")
    (tmp_path / "table.parquet").write_bytes(b"PAR1")
    assert "lighthouse-prepare" in refused_by(lighthouse, "eval", "--run", run, *settings, tmp_path / "table.parquet")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 " * 200)
    assert "not valid UTF-8" in refused_by(lighthouse, "eval", "--model", exported, *settings, tmp_path / "latin.txt")
    with open(tmp_path / "large.txt", "w") as large:
        large.truncate(1 << 27)
    assert "lighthouse-prepare --tokenizer" in refused_by(lighthouse, "eval", "--run", run, *settings, tmp_path / "large.txt")
    config = json.loads((foreign_model / "config.json").read_text())
    assert config["vocab_size"] != 256
    assert "lighthouse-prepare --tokenizer" in refused_by(lighthouse, "eval", "--model", foreign_model, *settings, text)


def test_tokens_of_another_tokenizer_are_refused(lighthouse, trained, tmp_path):
    """By eval, by a run that goes on with other data, and text by a training that begins with the model."""
    run, exported, _ = trained
    other = tokenizers.Tokenizer.from_file(str(exported / "tokenizer.json"))
    vocabulary = {token: 299 - number for token, number in other.get_vocab().items()}
    words = tokenizers.Tokenizer(tokenizers.models.BPE(vocabulary, []))
    words.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    words.add_special_tokens(["<|endoftext|>"])
    words.save(str(tmp_path / "tokenizer.json"))
    text = run.parent / "corpus.txt"
    for tokenizer, reason in ((tmp_path / "tokenizer.json", "there and"), ("bytes", "its tokens are bytes")):
        prepared = command(sys.executable, "-m", "lighthouse_prepare", text, "--tokenizer", tokenizer, "--output",
                           tmp_path / "tokens", "--validation", 0, "--overwrite")
        assert prepared.returncode == 0, prepared.stderr
        for source in (["--run", run], ["--model", exported, "--seq-len", 64]):
            message = refused_by(lighthouse, "eval", *source, "--data", tmp_path / "tokens" / "train")
            assert "has another tokenizer than the model in" in message and reason in message
        message = refused_by(lighthouse, "train", "--config", run / "config.toml", "--data.path", tmp_path / "tokens" / "train",
                             "--change", "data.path")
        assert "has another tokenizer than the model in" in message and reason in message
    message = refused_by(lighthouse, "train", "--config", run / "config.toml", "--training.initial_weights", exported,
                         "--data.path", text, "--logging.run_dir", tmp_path / "run")
    assert f"lighthouse-prepare --tokenizer {exported}" in message


@pytest.mark.parametrize("task", ["passkey", "multikey"])
def test_prompts_are_text(lighthouse, trained, task):
    """What eval finds is what transformers finds for the prompts that it shows."""
    run, exported, _ = trained
    common = ["--run", run, "--task", task, "--lengths", "320", "--trials", 4, "--depths", "0,50", "--json"]
    shown = [json.loads(line) for line in evaluate(lighthouse, *common, "--show", 4).stdout.splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    digits = torch.tensor([tokenizer.encode(str(digit))[-1] for digit in range(10)])
    logs, correct = [], 0
    for prompt in shown:
        tokens, right = tokenizer.encode(prompt["text"] + prompt["answer"]), int(prompt["answer"])
        assert tokens[-1] == digits[right] and 320 - 320 // 64 <= len(tokens) - 1 <= 320
        with torch.no_grad():
            log = model(torch.tensor([tokens[:-1]])).logits[0, -1, digits].double().log_softmax(0)
        logs.append(log[right].item())
        correct += int(log.argmax()) == right
    found = json.loads(evaluate(lighthouse, *common).stdout)["tasks"][task]
    assert (found["unit"], found["lengths"][0]["correct"]) == ("tokens", correct)
    assert found["lengths"][0]["log_probability"] == pytest.approx(sum(logs) / 4, rel=1e-4)


def test_copies_are_text(lighthouse, trained):
    run, exported, _ = trained
    common = ["--run", run, "--task", "copy", "--lengths", "400", "--trials", 3, "--json"]
    shown = [json.loads(line) for line in evaluate(lighthouse, *common, "--show", 3).stdout.splitlines()]
    tokenizer = transformers.AutoTokenizer.from_pretrained(exported)
    model = transformers.AutoModelForCausalLM.from_pretrained(exported, dtype=torch.float32)
    bits = size = 0
    for prompt in shown:
        tokens, text = tokenizer.encode(prompt["text"] + prompt["answer"]), tokenizer.encode(prompt["text"])
        begin = next((place for place, token in enumerate(text) if token != tokens[place]), len(text))
        with torch.no_grad():
            log = model(torch.tensor([tokens])).logits[0].double().log_softmax(1)
        bits -= sum(log[place - 1, tokens[place]].item() for place in range(begin, len(tokens))) / math.log(2)
        size += len(tokenizer.decode(tokens[begin:]))
        assert len(prompt["answer"]) <= len(tokenizer.decode(tokens[begin:])) < len(prompt["answer"]) + 16
    [cell] = json.loads(evaluate(lighthouse, *common).stdout)["tasks"]["copy"]["cells"]
    assert cell["bits_per_byte"] == pytest.approx(bits / size, rel=1e-4)
    assert 0 < cell["distance"] < 400


def test_a_tokenizer_without_digits_is_refused(lighthouse, foreign_model):
    words = tokenizers.Tokenizer(tokenizers.models.WordLevel({"<unk>": 0, "key": 1, "pass": 2}, unk_token="<unk>"))
    words.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    words.save(str(foreign_model / "tokenizer.json"))
    for task, reason in (("passkey", "has one token for several digits"), ("copy", "8 tokens are about 32 bytes here")):
        result = command(lighthouse, "eval", "--model", foreign_model, "--task", task, "--lengths", 8 if task == "copy" else 100)
        assert result.returncode == 2 and reason in result.stderr and result.stderr.count("\n") == 1, result.stderr

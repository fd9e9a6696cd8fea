"""From text and a tokenizer to a model of transformers that goes on with text: prepare, train, export."""

import json
import subprocess

import pytest
from prepare_corpora import END, byte_level_bpe, json_lines, read_documents, run, texts, write
from trained_run import KEYS

transformers = pytest.importorskip("transformers")

STEPS = {"training.steps": 12, "training.lighthouse_steps": 8, "training.batch_size": 2, "validation.interval": 0,
         "logging.sample_tokens": 0, "training.threads": 1}
TOKENS = 400


def lighthouse_command(program, command, **options):
    words = [str(text) for key, value in options.items() for text in (f"--{key}", value)]
    return subprocess.run([program, command, *words], capture_output=True, text=True, timeout=120)


def good(result):
    assert result.returncode == 0, result.stderr
    return result


def train(lighthouse, folder, **changed):
    """What prepare proposes, with a tiny model."""
    options = KEYS | STEPS | {"data.path": folder / "tokens" / "train",
                              "data.validation_path": folder / "tokens" / "validation",
                              "model.vocab_size": TOKENS, "logging.run_dir": folder / "run"} | changed
    return lighthouse_command(lighthouse, "train", **options)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for number in range(3):
        write(folder / "corpus" / f"{number}.jsonl.zst", json_lines(texts(80, seed=number)), ".zst")
    byte_level_bpe().save(str(folder / "tokenizer.json"))
    good(run(folder / "corpus", "--tokenizer", folder / "tokenizer.json", "--output", folder / "tokens", "--validation", 0.1,
             "--processes", 1))
    return folder


@pytest.fixture(scope="module")
def trained(prepared, lighthouse):
    good(train(lighthouse, prepared))
    return prepared


def test_three_commands_to_a_model_that_goes_on_with_text(trained, lighthouse):
    assert json.loads((trained / "run" / "metrics.jsonl").read_text().splitlines()[-1])["stage"] == 2
    good(lighthouse_command(lighthouse, "export", run=trained / "run", output=trained / "model"))
    generator = transformers.pipeline("text-generation", str(trained / "model"), device="cpu")
    tokenizer, model = generator.tokenizer, generator.model
    assert (tokenizer.eos_token_id, model.generation_config.eos_token_id, model.config.eos_token_id) == (0, 0, 0)
    assert len(tokenizer) == model.config.vocab_size == TOKENS
    [document, *_] = read_documents(trained / "tokens" / "train")
    assert tokenizer.encode(texts(80, seed=0)[0]) + [0] == document.tolist()
    [answer] = generator("ships see it.", max_new_tokens=8, do_sample=False)
    assert answer["generated_text"].startswith("ships see it.") and len(answer["generated_text"]) > len("ships see it.")


def test_another_tokenizer_for_the_export(trained, lighthouse, tmp_path):
    other = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe([END, "<stop>"]), eos_token="<stop>")
    other.save_pretrained(tmp_path / "other")
    good(lighthouse_command(lighthouse, "export", run=trained / "run", output=tmp_path / "model", tokenizer=tmp_path / "other"))
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "model").eos_token == "<stop>"
    refused = lighthouse_command(lighthouse, "export", run=trained / "run", output=tmp_path / "none", tokenizer=tmp_path)
    assert refused.returncode == 2 and "holds no file of a tokenizer" in refused.stderr
    assert not (tmp_path / "none").exists()


def test_a_model_without_the_tokens_is_refused_before_it_trains(prepared, lighthouse, tmp_path):
    for path in ("train", "train.bin"):
        refused = train(lighthouse, prepared, **{"model.vocab_size": TOKENS - 1, "data.path": prepared / "tokens" / path,
                                                 "logging.run_dir": tmp_path / "run"})
        assert refused.returncode == 2, refused.stderr
        assert f"model.vocab_size = {TOKENS - 1}: the tokenizer of" in refused.stderr
    assert not (tmp_path / "run").exists()


def test_the_folder_of_a_data_set_is_no_text(prepared, lighthouse, tmp_path):
    refused = train(lighthouse, prepared, **{"data.path": prepared / "tokens", "logging.run_dir": tmp_path / "run"})
    assert refused.returncode == 2 and "set data.path to PREFIX" in refused.stderr


def test_a_folder_of_transformers(tmp_path):
    """The end is the one that tokenizer_config.json names; its files are kept, and load."""
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe([END, "<stop>"]), eos_token="<stop>")
    fast.save_pretrained(tmp_path / "tokenizer")
    write(tmp_path / "tokenizer" / "model.safetensors", b"weights")
    write(tmp_path / "a.txt", "ships see it.")
    good(run(tmp_path / "a.txt", "--tokenizer", tmp_path / "tokenizer", "--output", tmp_path / "out", "--validation", 0))
    [document] = read_documents(tmp_path / "out" / "train")
    assert document.tolist() == [*fast.encode("ships see it."), fast.eos_token_id]
    kept = transformers.AutoTokenizer.from_pretrained(tmp_path / "out" / "tokenizer")
    assert (kept.decode(document[:-1]), kept.eos_token, len(kept)) == ("ships see it.", "<stop>", len(fast))
    assert not (tmp_path / "out" / "tokenizer" / "model.safetensors").exists()

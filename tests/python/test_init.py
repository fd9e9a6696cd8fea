"""lighthouse init, and lighthouse-init of the package: a configuration from a model folder, a corpus, a length and a device."""

import json
import os
import re
import subprocess
import sys

import pytest
from prepare_corpora import byte_level_bpe, json_lines, texts, write
from prepare_corpora import run as prepare

from conftest import ROOT

transformers = pytest.importorskip("transformers")
tomllib = pytest.importorskip("tomllib", reason="Python 3.10 has no tomllib")

TOKENS, POSITIONS, SEQ_LEN = 400, 2048, 512
SIZES = {"vocab_size": TOKENS, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16, "max_position_embeddings": POSITIONS}
GIB = 2**30


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    """A corpus of 400 tokens with its validation set, and a model of the same tokenizer."""
    torch = pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("init")
    write(folder / "corpus" / "a.jsonl.zst", json_lines(texts(400, seed=1)), ".zst")
    byte_level_bpe().save(str(folder / "tokenizer.json"))
    result = prepare(folder / "corpus", "--tokenizer", folder / "tokenizer.json", "--output", folder / "tokens",
                     "--validation", 0.1, "--processes", 1)
    assert result.returncode == 0, result.stderr
    torch.manual_seed(1)
    model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(**SIZES))
    model.save_pretrained(folder / "model")
    transformers.PreTrainedTokenizerFast(tokenizer_object=byte_level_bpe()).save_pretrained(folder / "model")
    return folder


@pytest.fixture
def init(lighthouse, here, tmp_path):
    def call(*flags, exit_code=0, **changed):
        options = {"model": here / "model", "data": here / "tokens", "seq_len": SEQ_LEN, "device": "cpu",
                   "output": tmp_path / "my.toml"} | changed
        words = [str(word) for name, value in options.items() if value is not None
                 for word in ("--" + name.replace("_", "-"), value)]
        result = subprocess.run([lighthouse, "init", *words, *flags], capture_output=True, text=True, timeout=60)
        assert result.returncode == exit_code, result.stderr
        if exit_code:
            assert result.stderr.startswith("lighthouse init: ") and result.stderr.count("\n") == 1 and not result.stdout
            return result.stderr.removeprefix("lighthouse init: ")
        assert result.stdout == f"{options['output']}\n"
        return tomllib.loads(options["output"].read_text())

    return call


def test_what_is_written_trains(lighthouse, init, here, tmp_path):
    config = init()
    assert config["training"]["initial_weights"] == str(here / "model")
    assert config["data"] == {"path": str(here / "tokens" / "train"), "validation_path": str(here / "tokens" / "validation")}
    assert config["model"].items() >= {"vocab_size": TOKENS, "dim": 32, "num_layers": 2}.items()
    steps = config["training"]["steps"]
    assert config["training"]["lighthouse_steps"] == steps * 5 // 8 > 0
    result = subprocess.run([lighthouse, "train", "--config", tmp_path / "my.toml", "--training.threads", "1",
                             "--logging.sample_tokens", "0"], capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    lines = [json.loads(line) for line in (tmp_path / "runs" / "my" / "metrics.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == [1] * (steps * 5 // 8) + [2] * (steps - steps * 5 // 8)
    assert lines[-1]["loss"] < lines[0]["loss"] and "validation_loss_lighthouse" in lines[-1]


def test_every_line_says_why(init, tmp_path):
    init()
    head, *sections = (tmp_path / "my.toml").read_text().split("\n\n")
    assert all(line.startswith("# ") for line in head.splitlines()) and "lighthouse train --config" in head
    for section in sections:
        name, *lines = section.strip().splitlines()
        assert re.fullmatch(r"\[\w+\]", name) and lines
        for line in lines:
            assert re.fullmatch(r"\w+ = .+  # .{10,}", line), line


@pytest.fixture(scope="module")
def long_corpus(tmp_path_factory):
    """A data set of Megatron-LM of 2^26 tokens, all of them 0, which takes no disk."""
    sys.path.insert(0, str(ROOT / "python"))
    import numpy as np
    from lighthouse_prepare.megatron import write_index
    prefix = tmp_path_factory.mktemp("long") / "zeros"
    lengths = np.full(64, 1 << 20, dtype=np.int32)
    with open(prefix.with_suffix(".bin"), "wb") as file:
        file.truncate(2 * int(lengths.sum()))
    write_index(prefix.with_suffix(".idx"), lengths, np.dtype("<u2"))
    return prefix


CASES = {  # model, N, device, memory, GPUs: recompute, offload, (L, k), (data, context)
    "fits": ("llama3-1b", 32768, "h200", None, 1, "none", False, (3, 512), None),
    "less memory": ("llama3-1b", 65536, "h100", 48, 1, "selective", False, (3, 1024), None),
    "still less": ("llama3-1b", 65536, "h100", 36, 1, "full", False, (3, 1024), None),
    "least memory": ("llama3-1b", 131072, "a100", 40, 1, "full", True, (3, 2048), None),
    "short": ("llama3-1b", 4096, "h200", None, 1, "none", False, None, None),
    "a million": ("llama3-1b", 1048576, "h200", None, 8, "selective", False, (4, 4096), (1, 8)),
    "a GPU a sequence": ("paper", 8192, "h100", None, 4, "none", False, (3, 128), (4, 1)),
}


@pytest.mark.parametrize("case", CASES, ids=[name.replace(" ", "-") for name in CASES])
def test_what_is_chosen_fits_and_is_the_first_that_does(lighthouse, init, long_corpus, tmp_path, case):
    model, seq_len, device, memory, world_size, recompute, offload, shape, ranks = CASES[case]
    config = init(model=model, data=long_corpus, seq_len=seq_len, device=device, memory=memory, world_size=world_size)
    training = config["training"]
    assert (training["recompute"], training["offload"], training["precision"]) == (recompute, offload, "bf16")
    assert ("attention" in config) == (training["lighthouse_steps"] > 0) == (shape is not None)
    if shape:
        assert (config["attention"]["num_levels"], config["attention"]["topk"]) == shape
    assert config.get("parallel") == (dict(zip(("data", "context"), ranks)) if ranks else None)

    device_options = ["--device", device, *(["--memory", str(memory)] if memory else [])]

    def plan(*options):
        result = subprocess.run([lighthouse, "plan", "--config", tmp_path / "my.toml", *device_options, "--json", *map(str, options)],
                                capture_output=True, text=True, timeout=60)
        return json.loads(result.stdout)

    report = plan()
    comfortable = 0.9 * report["device"]["memory_bytes"]
    assert report["memory_bytes"] <= comfortable
    assert f"stage 2 {report['memory_bytes'] / GIB:.1f} GiB" in (tmp_path / "my.toml").read_text()
    less = ["--training.offload_layers", training["offload_layers"] - 1] if offload else \
        ["--training.recompute", {"none": "none", "selective": "none", "full": "selective"}[recompute]]
    assert (plan(*less)["memory_bytes"] > comfortable) == (recompute != "none")
    trained_on = training["steps"] * report["tokens_per_step"]
    held_out = max(0.02 * (64 << 20), 2 * seq_len)
    assert trained_on <= 64 << 20 < trained_on + held_out + report["tokens_per_step"], "the corpus once"


def test_a_large_model_has_its_moments_on_the_host(init, long_corpus, tmp_path):
    options = {"model": "llama3-8b", "data": long_corpus, "device": "h200"}
    config = init(seq_len=131072, host_memory=128, **options)
    training = config["training"]
    assert (training["recompute"], training["offload"], training["offload_optimizer"]) == ("full", False, True)
    assert not config["checkpoint"]["asynchronous"], "a second copy of 90 GiB is more than the host has"
    longer = init("--force", seq_len=393216, host_memory=128, **options)["training"]
    assert longer["offload"] and longer["offload_optimizer"]
    weights = init("--force", seq_len=65536, host_memory=128, **options | {"device": "h100"})["training"]
    assert weights["offload_optimizer"] and weights["offload_weights"], "80 GB hold no fp32 weights beside the gradients"
    assert "of the host, which has 64.0 GiB" in init("--force", seq_len=393216, host_memory=64, exit_code=2, **options)


def test_the_longest_that_fits_is_named_and_fits(init, long_corpus, tmp_path):
    options = {"model": "llama3-1b", "data": long_corpus, "device": "h100"}
    message = init(seq_len=2097152, exit_code=2, **options)
    assert ("on a device of 79.1 GiB, with recompute = \"full\" and offload = true and offload_optimizer = true and "
            "offload_weights = true") in message
    longest = int(re.search(r"the longest that fits is (\d+)", message)[1])
    assert not (tmp_path / "my.toml").exists()
    assert init(seq_len=longest, **options)["training"]["recompute"] == "full"
    assert "barely" in (tmp_path / "my.toml").read_text()
    assert f"the longest that fits is {longest}" in init("--force", seq_len=longest + 1024, exit_code=2, **options)


def test_a_length_beyond_the_positions_of_the_model(lighthouse, init, here, tmp_path):
    written = init(seq_len=2 * POSITIONS)
    theta = written["model"]["rope_theta"]
    assert theta == pytest.approx(10000 * 2 ** (16 / 14), rel=0.05) and written["training"]["initial_rope"] == "changed"
    assert f"a base to begin with for {2 * POSITIONS} positions, of which the model has {POSITIONS}" in (tmp_path / "my.toml").read_text()
    result = subprocess.run([lighthouse, "train", "--config", tmp_path / "my.toml", "--training.steps", "1", "--training.lighthouse_steps",
                             "0", "--optimizer.warmup_steps", "0", "--logging.run_dir", tmp_path / "run"], capture_output=True, text=True,
                            timeout=300)
    assert result.returncode == 0 and "RoPE changed" in result.stderr, result.stderr
    changed = tmp_path / "longer"
    changed.mkdir()
    for file in (here / "model").iterdir():
        (changed / file.name).symlink_to(file)
    (changed / "config.json").unlink()
    config = json.loads((here / "model" / "config.json").read_text())
    for keys in ({"max_position_embeddings": 2 * POSITIONS, "rope_parameters": {"rope_type": "default", "rope_theta": theta}},
                 {"rope_parameters": {"rope_type": "yarn", "factor": 4.0, "rope_theta": 10000.0,
                                      "original_max_position_embeddings": POSITIONS}}):
        (changed / "config.json").write_text(json.dumps(config | keys))
        written = init("--force", model=changed, seq_len=2 * POSITIONS)
        assert written["model"]["rope_theta"] == keys["rope_parameters"]["rope_theta"]
        assert "initial_rope" not in written["training"], "the folder says it already"
    (changed / "model.safetensors").unlink()
    (changed / "config.json").write_text(json.dumps(config))
    assert "initial_weights" not in init("--force", model=changed, seq_len=2 * POSITIONS)["training"], "random weights learn any"


def test_a_preset_gets_the_vocabulary_of_its_corpus(init, here):
    assert init(model="small")["model"]["vocab_size"] == 448  # 400 up to a multiple of 64
    text = here / "corpus.txt"
    text.write_text("ships see it. " * 2000)
    config = init("--force", model="llama3-1b", data=text, device="h200")
    assert config["model"].get("vocab_size", 256) == 256 and config["data"]["validation_fraction"] == 0.02


def test_a_validation_set_without_a_sequence_is_not_taken(init, here, tmp_path):
    config = init(model="small", seq_len=4096)
    tokens = json.loads((here / "tokens" / "manifest.json").read_text())["data"]["validation"]["statistics"]["tokens"]
    assert 512 < tokens < 4096, "or the test is of nothing"
    assert config["data"].keys() == {"path", "validation_fraction"}
    assert f"has {tokens} tokens, less than one sequence" in (tmp_path / "my.toml").read_text()


def test_a_file_that_is_there_stays(init, tmp_path):
    (tmp_path / "my.toml").write_text("mine")
    assert "is there already" in init(exit_code=2)
    assert (tmp_path / "my.toml").read_text() == "mine"
    assert "--seq-len" in init("--force", seq_len=1 << 29, exit_code=2)
    assert (tmp_path / "my.toml").read_text() == "mine", "what is refused replaces nothing"
    assert init("--force")["training"]["seq_len"] == SEQ_LEN
    assert [path.name for path in tmp_path.iterdir()] == ["my.toml"]


REFUSALS = {
    "no such model": ({"model": "no-such"}, "is neither a folder with config.json nor a preset: tiny, small"),
    "no config": ({"model": "{here}/tokens"}, "has no config.json"),
    "no corpus": ({"data": "{here}/no-such"}, "no-such"),
    "no validation": ({"validation": "{here}/no-such"}, "; set --validation to"),
    "empty validation": ({"validation": ""}, '--validation "": must be the name of a file or a folder'),
    "short corpus": ({"model": "tiny", "data": "{here}/short.txt"}, "--seq-len"),
    "text for a model with a tokenizer": ({"data": "{here}/text.txt"}, "lighthouse-prepare --tokenizer"),
    "unknown device": ({"device": "abacus"}, "--device abacus: not known"),
    "device without memory": ({"device": "a100"}, "give its memory too"),
    "no length": ({"seq_len": 0}, "--seq-len 0: must be"),
    "negative length": ({"seq_len": -4}, "--seq-len -4: must be"),
    "no memory": ({"device": "h100", "memory": 0.25}, "no length fits"),
    "ranks": ({"device": "h200", "world_size": 8, "seq_len": 1 << 20, "model": "paper", "data": "{here}/text.txt"}, "--seq-len"),
    "no folder": ({"output": "{here}/no-such/my.toml"}, "there is no folder"),
    "a folder": ({"output": "{here}"}, "is there and not a file"),
}


@pytest.mark.parametrize("name", REFUSALS, ids=[name.replace(" ", "-") for name in REFUSALS])
def test_refusals(init, here, tmp_path, name):
    write(here / "short.txt", "short")
    write(here / "text.txt", "ships see it. " * 1000)
    changed, words = REFUSALS[name]
    changed = {key: value.format(here=here) if isinstance(value, str) else value for key, value in changed.items()}
    assert words in init(exit_code=2, **changed)
    assert list(tmp_path.iterdir()) == []


def with_config(here, folder, **keys):
    """The model with other keys in its config.json; None: left out."""
    folder.mkdir()
    config = json.loads((here / "model" / "config.json").read_text()) | keys
    (folder / "config.json").write_text(json.dumps({key: value for key, value in config.items() if value is not None}))
    return folder


@pytest.mark.parametrize("keys, words", [
    ({"model_type": "mamba"}, "model_type = \"mamba\" is not supported"),
    ({"num_local_experts": 8}, "mixtures of experts (MoE) not"),
    ({"vocab_size": 100}, "model.vocab_size = 100: the tokenizer of"),
    ({"num_attention_heads": 0}, "num_attention_heads = 0"),
    ({"num_key_value_heads": 3}, "must be a multiple of model.num_kv_heads"),
    ({"num_key_value_heads": 0}, "model.num_kv_heads = 0"),
    ({"hidden_size": -32}, "model.dim = -32"),
    ({"num_hidden_layers": 100000}, "model.num_layers = 100000"),
    ({"head_dim": 15}, "must be even"),
    ({"hidden_size": 1 << 40}, "model.dim"),
], ids=lambda value: next(iter(value)) if isinstance(value, dict) else None)
def test_models_that_cannot_be(init, here, tmp_path, keys, words):
    assert words in init(model=with_config(here, tmp_path / "model", **keys), exit_code=2)
    assert not (tmp_path / "my.toml").exists()


def test_damaged_models(init, here, tmp_path):
    assert "key hidden_size is missing" in init(model=with_config(here, tmp_path / "a", hidden_size=None), exit_code=1)
    broken = with_config(here, tmp_path / "b")
    (broken / "config.json").write_text("{")
    assert "config.json" in init(model=broken, exit_code=1)


def test_a_corpus_of_another_tokenizer(lighthouse, init, here, tmp_path):
    """Also for train itself, which would train on other words."""
    other = byte_level_bpe(["<first>", "<|endoftext|>"])
    other.save(str(tmp_path / "other.json"))
    for tokenizer, difference in ((tmp_path / "other.json", "has number 0 there and 1 here"), ("bytes", "its tokens are bytes")):
        result = prepare(here / "corpus", "--tokenizer", tokenizer, "--output", tmp_path / "tokens", "--processes", 1,
                         "--overwrite")
        assert result.returncode == 0, result.stderr
        message = init(data=tmp_path / "tokens", exit_code=2)
        assert "has another tokenizer than the model in" in message and difference in message
        init("--force", output=tmp_path / "good.toml")
        refused = subprocess.run([lighthouse, "train", "--config", tmp_path / "good.toml", "--data.path",
                                  tmp_path / "tokens" / "train", "--data.validation_path", "", "--logging.run_dir",
                                  tmp_path / "run"], capture_output=True, text=True, timeout=60)
        assert refused.returncode == 2 and difference in refused.stderr, refused.stderr


def lighthouse_init(*arguments, **variables):
    return subprocess.run([sys.executable, "-m", "lighthouse_init", *map(str, arguments)], capture_output=True, text=True,
                          timeout=60, env=os.environ | {"PYTHONPATH": str(ROOT / "python")} | variables)


def test_the_command_of_the_package(lighthouse, here, tmp_path):
    options = ["--model", here / "model", "--data", here / "tokens", "--seq-len", SEQ_LEN, "--device", "cpu"]
    for number, variables in enumerate([{"LIGHTHOUSE_BIN": str(lighthouse)},
                                        {"LIGHTHOUSE_BIN": "", "PATH": f"{lighthouse.parent}:/usr/bin:/bin"}]):
        output = tmp_path / f"{number}.toml"
        result = lighthouse_init(*options, "--output", output, **variables)
        assert (result.returncode, result.stdout) == (0, f"{output}\n"), result.stderr
    again = lighthouse_init(*options, "--output", output, **variables)
    assert again.returncode == 2 and "is there already" in again.stderr


@pytest.mark.parametrize("variables, words", [({"LIGHTHOUSE_BIN": "/no/such"}, "LIGHTHOUSE_BIN=/no/such: is no program"),
                                              ({"LIGHTHOUSE_BIN": "", "PATH": "/nowhere"}, "is not on PATH")])
def test_the_command_without_the_program(variables, words):
    result = lighthouse_init("--help", **variables)
    assert result.returncode == 2 and words in result.stderr and "make build" in result.stderr


@pytest.mark.parametrize("name, options", {
    "llama3-1b-128k": {"model": "llama3-1b", "device": "h100"},
    "llama3-1b-1m": {"model": "llama3-1b", "device": "h100", "world_size": 8},
    "llama3-8b-128k": {"model": "llama3-8b", "device": "h200", "world_size": 8},
    "llama3-8b-1m": {"model": "llama3-8b", "device": "h200", "world_size": 8},
}.items())
def test_the_starting_configurations_are_what_it_would_choose(init, long_corpus, name, options):
    """But for the batch, which follows from the corpus."""
    ready = tomllib.loads((ROOT / "configs" / f"{name}.toml").read_text())
    chosen = init(data=long_corpus, seq_len=ready["training"]["seq_len"], **options)
    assert chosen["attention"] == ready["attention"] | {"full_attention_layers": []}
    assert chosen["training"]["recompute"] == ready["training"]["recompute"]
    assert chosen.get("parallel") == ready.get("parallel")
    assert chosen["optimizer"]["learning_rate"] == ready["optimizer"]["learning_rate"]

"""training.initial_weights: the C++ trainer goes on from a model that transformers saved, and transformers from the trainer's."""

import json
import shutil
import subprocess

import numpy as np
import pytest
import tokenizers
import torch
import transformers
from lighthouse_prepare.megatron import write_index
from safetensors.torch import load_file

SEQ_LEN = 64
SIZES = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 2,
         "num_key_value_heads": 1, "head_dim": 16, "rms_norm_eps": 1e-5, "initializer_range": 0.1}
KEYS = {"model.vocab_size": 256, "model.dim": 32, "model.ffn_dim": 48, "model.num_layers": 2, "model.num_heads": 2,
        "model.num_kv_heads": 1, "model.head_dim": 16, "model.rope_theta": 10000, "model.rms_norm_eps": 1e-5,
        "attention.topk": 4, "training.seq_len": SEQ_LEN, "training.steps": 20, "training.lighthouse_steps": 0,
        "training.batch_size": 4, "training.device": "cpu", "training.threads": 1, "optimizer.learning_rate": 1e-2,
        "optimizer.warmup_steps": 0, "data.validation_fraction": 0, "logging.tensorboard": "false",
        "logging.sample_tokens": 0}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """One batch of four sequences and the token after them: the order of the sequences does not matter to its mean loss."""
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    words = "the light house stands at sea, far from land; ships see it.".split()
    text = " ".join(words[index] for index in np.random.default_rng(1).integers(len(words), size=200))
    path.write_text(text[: 4 * SEQ_LEN + 1])
    return path


def tiny_llama(tied=False, qwen=False):
    torch.manual_seed(3)
    config_type = transformers.Qwen3Config if qwen else transformers.LlamaConfig
    return transformers.AutoModelForCausalLM.from_config(config_type(
        **SIZES, tie_word_embeddings=tied, rope_parameters={"rope_type": "default", "rope_theta": 10000.0}))


def run_train(program, corpus, folder, run, **keys):
    options = KEYS | {"training.initial_weights": folder, "data.path": corpus, "logging.run_dir": run} | keys
    return subprocess.run([program, "train", *(str(text) for key, value in options.items() for text in (f"--{key}", value))],
                          capture_output=True, text=True, timeout=300)


def losses_of(result, run):
    assert result.returncode == 0, result.stderr
    return [json.loads(line)["loss"] for line in (run / "metrics.jsonl").read_text().splitlines()]


@torch.no_grad()
def transformers_loss(folder, corpus, dtype=torch.float64):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    tokens = torch.tensor(list(corpus.read_bytes()))
    inputs, targets = tokens[:-1].view(4, SEQ_LEN), tokens[1:].view(4, SEQ_LEN)
    return torch.nn.functional.cross_entropy(model(inputs).logits.flatten(0, 1), targets.flatten()).item()


@pytest.mark.parametrize("keys", [{}, {"tied": True}, {"qwen": True}], ids=["llama", "tied", "qwen3"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("shard_size", ["1GB", "10KB"])
def test_training_goes_on_where_transformers_is(lighthouse, corpus, tmp_path, keys, dtype, shard_size):
    folder = tmp_path / "model"
    tiny_llama(**keys).to(dtype).save_pretrained(folder, max_shard_size=shard_size)
    assert (folder / "model.safetensors").exists() == (shard_size == "1GB")
    result = run_train(lighthouse, corpus, folder, tmp_path / "run", **{
        "model.tie_embeddings": str("tied" in keys).lower(), "model.family": "qwen3" if "qwen" in keys else "llama"})
    losses = losses_of(result, tmp_path / "run")
    exact = transformers_loss(folder, corpus)
    error = abs(transformers_loss(folder, corpus, torch.float32) - exact)
    assert abs(losses[0] - exact) <= 2 * error + exact * 4e-7  # a few roundings of a mean in fp32
    assert losses[-1] < losses[0] - 1 and len(losses) == 20
    assert f"weights from {folder}" in result.stderr


def test_both_stages_learn(lighthouse, corpus, tmp_path):
    tiny_llama().save_pretrained(tmp_path / "model")
    result = run_train(lighthouse, corpus, tmp_path / "model", tmp_path / "run", **{"training.lighthouse_steps": 12})
    losses = losses_of(result, tmp_path / "run")
    assert losses[11] < losses[0] - 0.5 and losses[-1] < losses[0] - 1


def test_an_exported_run_is_trained_on(lighthouse, corpus, tmp_path):
    """export, then the folder as initial weights with a learning rate of next to nothing: equal weights."""
    tiny_llama().save_pretrained(tmp_path / "model")
    losses_of(run_train(lighthouse, corpus, tmp_path / "model", tmp_path / "first"), tmp_path / "first")
    exported = tmp_path / "exported"
    subprocess.run([lighthouse, "export", "--run", tmp_path / "first", "--output", exported], check=True, timeout=300)
    losses = losses_of(run_train(lighthouse, corpus, exported, tmp_path / "second", **{
        "training.steps": 1, "optimizer.learning_rate": 1e-30}), tmp_path / "second")
    assert abs(losses[0] - transformers_loss(exported, corpus)) < 1e-5
    [checkpoint] = (tmp_path / "second" / "checkpoints").glob("step-*")
    before, after = load_file(exported / "model.safetensors"), load_file(checkpoint / "model.safetensors")
    assert before.keys() == after.keys()
    for name, tensor in before.items():
        assert torch.equal(after[name], tensor), name


def refusal(program, corpus, tmp_path, **keys):
    result = run_train(program, corpus, tmp_path / "model", tmp_path / "run", **keys)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert result.stderr.startswith("lighthouse train: ") and result.stderr.count("\n") == 1, result.stderr
    return result.stderr


def test_options_of_the_refusal_are_the_right_ones(lighthouse, corpus, tmp_path):
    tiny_llama(qwen=True).save_pretrained(tmp_path / "model")
    message = refusal(lighthouse, corpus, tmp_path, **{"model.dim": 64, "model.rope_theta": 500000, "model.num_layers": 3})
    assert "training.initial_weights" in message
    assert "model.dim (32 there, 64 here), model.num_layers (2 there, 3 here)" in message
    options = message.split("set the folder's values: ")[1].split()
    keys = {key.removeprefix("--"): value for key, value in zip(options[::2], options[1::2], strict=True)}
    assert keys.keys() == {"model.dim", "model.num_layers", "model.rope_theta", "model.family"}
    losses_of(run_train(lighthouse, corpus, tmp_path / "model", tmp_path / "run", **keys, **{"training.steps": 1}),
              tmp_path / "run")


def test_a_changed_rope_is_said_trained_with_and_exported(lighthouse, corpus, tmp_path):
    """The first loss is transformers' with the new base, which config.json of the export has; so has a run that goes on."""
    folder, run = tmp_path / "model", tmp_path / "run"
    tiny_llama().save_pretrained(folder)
    longer = {"model.rope_theta": 500000.0, "training.initial_rope": "changed"}
    assert ("differs in model.rope_theta (10000.0 there, 500000.0 here); for another RoPE, as of a longer context, add "
            "--training.initial_rope changed; or else set the folder's values: --model.rope_theta 10000.0\n"
            ) in refusal(lighthouse, corpus, tmp_path, **{"model.rope_theta": 500000.0})
    assert (f"training.initial_rope = \"changed\": model.rope_theta = 10000 and all else of model.rope_* are those of the model "
            f"in '{folder}'; set the base") in refusal(lighthouse, corpus, tmp_path, **{"training.initial_rope": "changed"})
    result = run_train(lighthouse, corpus, folder, run, **longer)
    losses = losses_of(result, run)
    assert f"weights from {folder}, RoPE changed" in result.stderr
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps(config | {"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}))
    exact = transformers_loss(folder, corpus)
    error = abs(transformers_loss(folder, corpus, torch.float32) - exact)
    assert abs(losses[0] - exact) <= 2 * error + exact * 4e-7
    path.write_text(json.dumps(config))
    assert abs(transformers_loss(folder, corpus) - exact) > 1e-4, "or the test is of nothing"
    subprocess.run([lighthouse, "export", "--run", run, "--output", tmp_path / "out"], check=True, timeout=300)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").rope_parameters["rope_theta"] == 500000.0
    assert "all steps are done already" in run_train(lighthouse, corpus, folder, run, **longer).stderr
    other = run_train(lighthouse, corpus, folder, run)
    assert other.returncode == 2 and "the configuration differs in model.rope_theta" in other.stderr


def test_what_the_decoder_cannot_run_is_refused(lighthouse, corpus, tmp_path):
    tiny_llama().save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    rope = {"rope_type": "longrope", "rope_theta": 10000.0, "factor": 8.0}
    path.write_text(json.dumps(config | {"rope_parameters": rope}))
    assert 'rope_type = "longrope" is not supported' in refusal(lighthouse, corpus, tmp_path)
    path.write_text(json.dumps(config | {"model_type": "gpt2"}))
    assert 'model_type = "gpt2"' in refusal(lighthouse, corpus, tmp_path)


def tokenizer_of_words():
    words = ["<unk>", "<s>", "</s>", "<pad>", *"the light house stands at sea, far from land; ships see it.".split()]
    model = tokenizers.models.WordLevel({word: index for index, word in enumerate(words)}, unk_token="<unk>")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.WhitespaceSplit()
    return transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>",
                                                eos_token="</s>", pad_token="<pad>", chat_template="{{ messages }}")


@pytest.mark.parametrize("has_origin", [True, False], ids=["origin-there", "origin-gone"])
def test_exports_carry_over_what_is_not_weights(lighthouse, corpus, tmp_path, has_origin):
    origin = tmp_path / "model"
    model = tiny_llama()
    model.config.update({"bos_token_id": 1, "eos_token_id": [2, 3], "pad_token_id": 3, "max_position_embeddings": 4096})
    model.generation_config = transformers.GenerationConfig(bos_token_id=1, eos_token_id=[2, 3], pad_token_id=3, do_sample=True,
                                                            temperature=0.6, top_p=0.9)
    model.save_pretrained(origin)
    tokenizer_of_words().save_pretrained(origin)
    tokens = tokenizer_of_words()("light house stands")["input_ids"]
    text = np.frombuffer(corpus.read_bytes(), dtype=np.uint8)  # as tokens: bytes are none of that tokenizer
    text.astype("<u2").tofile(tmp_path / "tokens.bin")
    write_index(tmp_path / "tokens.idx", np.array([len(text)]), np.dtype("<u2"))
    losses_of(run_train(lighthouse, tmp_path / "tokens", origin, tmp_path / "run", **{"training.steps": 1}), tmp_path / "run")
    if not has_origin:
        shutil.rmtree(origin)
    for _ in range(2):
        subprocess.run([lighthouse, "export", "--run", tmp_path / "run", "--output", tmp_path / "out", "--overwrite"],
                       check=True, timeout=300, capture_output=True)
    config = transformers.AutoConfig.from_pretrained(tmp_path / "out")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (1, [2, 3], 3)
    assert config.max_position_embeddings == 4096
    generation = transformers.GenerationConfig.from_pretrained(tmp_path / "out")
    assert (generation.temperature, generation.top_p, generation.eos_token_id) == (0.6, 0.9, [2, 3])
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer("light house stands")["input_ids"] == tokens
    assert (tokenizer.eos_token, tokenizer.chat_template) == ("</s>", "{{ messages }}")


def test_exports_have_at_least_the_positions_that_were_trained_on(lighthouse, corpus, tmp_path):
    model = tiny_llama()
    model.config.max_position_embeddings = 16
    model.save_pretrained(tmp_path / "model")
    losses_of(run_train(lighthouse, corpus, tmp_path / "model", tmp_path / "run", **{"training.steps": 1}), tmp_path / "run")
    subprocess.run([lighthouse, "export", "--run", tmp_path / "run", "--output", tmp_path / "out"], check=True, timeout=300)
    assert transformers.AutoConfig.from_pretrained(tmp_path / "out").max_position_embeddings == SEQ_LEN

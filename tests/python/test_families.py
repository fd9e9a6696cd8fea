"""Families of models and scalings of RoPE: what transformers makes is loaded, trained, exported and generated from, with
transformers' logits."""

import json
import subprocess

import pytest
import torch
import transformers
from safetensors.torch import load_file
from transformers_logits import VERSION, check_logits, load_transformers, logits_and_bound, needs, rope_keys, rope_of, run

SIZES = {"vocab_size": 256, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
         "num_key_value_heads": 2, "max_position_embeddings": 64, "initializer_range": 0.2, "rms_norm_eps": 1e-5,
         "bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 16}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
MODELS = {  # keys of config.json
    "llama-linear": ("llama", {"rope": {"rope_type": "linear", "factor": 4.0}}),
    "llama-dynamic": ("llama", {"rope": {"rope_type": "dynamic", "factor": 3.0}, "max_position_embeddings": 16}),
    "llama-yarn": ("llama", {"rope": YARN}),
    "llama-yarn-all-keys": ("llama", {"rope": YARN | {"beta_fast": 8.0, "beta_slow": 0.5, "attention_factor": 0.9}}),
    "llama-yarn-mscale": ("llama", {"rope": YARN | {"mscale": 0.7, "mscale_all_dim": 1.2}}),
    "llama-3.1": ("llama", {"rope": LLAMA3 | {"rope_theta": 500000.0}}),
    "llama-3.2-tied": ("llama", {"rope": LLAMA3 | {"factor": 32.0}, "tie_word_embeddings": True}),
    "llama-theta": ("llama", {"rope": {"rope_type": "default", "rope_theta": 8000000.0}}),
    "llama-padded": ("llama", {"vocab_size": 320}),
    "mistral": ("mistral", {"sliding_window": None, "head_dim": 12, "rope": {"rope_type": "default", "rope_theta": 1e6}}),
    "qwen2": ("qwen2", {"rope": {"rope_type": "default", "rope_theta": 1e6}, "use_sliding_window": False}),
    "qwen2.5-yarn-tied": ("qwen2", {"rope": YARN, "tie_word_embeddings": True}),
    "qwen3-yarn": ("qwen3", {"rope": YARN, "head_dim": 16}),
    "smollm2": ("llama", {"tie_word_embeddings": True, "rope": {"rope_type": "default", "rope_theta": 100000.0}}),
    "smollm3": ("smollm3", {"no_rope_layers": [1, 0, 1], "tie_word_embeddings": False}),
    "smollm3-interval": ("smollm3", {"no_rope_layer_interval": 2, "rope": LLAMA3}),
}


def make(folder, family, rope=None, **keys):
    """A tiny random model, whose norms and biases are not one and zero."""
    needs(family, rope)
    torch.manual_seed(3)
    config = SIZES | keys | (rope_keys({"rope_theta": 10000.0} | rope) if rope else {})
    model = transformers.AutoModelForCausalLM.from_config(transformers.AutoConfig.for_model(family, **config))
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(folder)
    return model


@pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
@torch.no_grad()
def test_logits_frequencies_and_export_are_those_of_transformers(export_fixture, tmp_path, model):
    family, keys = model
    folder, again = tmp_path / "model", tmp_path / "again"
    make(folder, family, **keys)
    run(export_fixture, "load", folder, tmp_path / "outputs.safetensors", again)
    outputs = load_file(tmp_path / "outputs.safetensors")
    tokens = outputs["tokens"]
    check_logits(outputs["logits"], *logits_and_bound(folder, tokens))
    theirs, exported = load_transformers(folder, dtype=torch.float32), load_transformers(again, dtype=torch.float32)
    assert torch.equal(exported(tokens).logits, theirs(tokens).logits)
    rope = theirs.model.rotary_emb
    assert torch.equal(outputs["frequencies"], rope.inv_freq)
    assert outputs["attention_factor"].item() == pytest.approx(rope.attention_scaling, rel=1e-7)
    written, given = rope_of(exported.config), rope_of(theirs.config)
    assert written == {key: value for key, value in given.items() if "mscale" not in key} | {
        key: written[key] for key in ("attention_factor", "beta_fast", "beta_slow") if key in written}
    if rope.rope_type == "dynamic":  # by which it scales; and its keys in a cache are of other lengths
        assert exported.config.max_position_embeddings == theirs.config.max_position_embeddings
    else:
        greedy = theirs.generate(tokens[:1], attention_mask=torch.ones_like(tokens[:1]), do_sample=False, max_new_tokens=20)
        assert torch.equal(greedy[0, 33:], outputs["greedy"])


def lighthouse_run(program, command, **options):
    arguments = [str(text) for key, value in options.items() for text in (f"--{key.replace('__', '.')}", value)]
    return subprocess.run([program, command, *arguments], capture_output=True, text=True, timeout=300)


@pytest.mark.parametrize("name", ["llama-3.1", "qwen2.5-yarn-tied", "smollm3", "mistral"])
@torch.no_grad()
def test_both_stages_train_on_and_export(lighthouse, tmp_path, name):
    family, keys = MODELS[name]
    folder, seq_len = tmp_path / "model", 64
    model = make(folder, family, **keys).double()
    (tmp_path / "corpus.txt").write_bytes(bytes(torch.randint(97, 110, (seq_len + 1,)).tolist()))
    options = {"training__initial_weights": folder, "data__path": tmp_path / "corpus.txt", "attention__topk": 4,
               "logging__run_dir": tmp_path / "run", "training__seq_len": seq_len, "training__steps": 12,
               "training__lighthouse_steps": 8, "training__device": "cpu", "training__threads": 1,
               "optimizer__warmup_steps": 0, "optimizer__learning_rate": 3e-3, "data__validation_fraction": 0,
               "logging__tensorboard": "false", "logging__sample_tokens": 0}
    refused = lighthouse_run(lighthouse, "train", **options)
    assert refused.returncode == 2
    words = refused.stderr.split("set the folder's values: ")[1].split()
    options |= {key.removeprefix("--").replace(".", "__"): value for key, value in zip(words[::2], words[1::2], strict=True)}
    result = lighthouse_run(lighthouse, "train", **options | {"training__lighthouse_steps": 0, "training__steps": 1,
                                                              "logging__run_dir": tmp_path / "dense"})
    assert result.returncode == 0, result.stderr
    [first] = [json.loads(line) for line in (tmp_path / "dense" / "metrics.jsonl").read_text().splitlines()]
    text = torch.tensor(list((tmp_path / "corpus.txt").read_bytes()))[None]
    with torch.enable_grad():
        loss = torch.nn.functional.cross_entropy(model(text[:, :-1]).logits[0], text[0, 1:])
        loss.backward()
    norm = torch.cat([parameter.grad.flatten() for parameter in model.parameters()]).norm().item()
    assert first["loss"] == pytest.approx(loss.item(), rel=1e-5)
    assert first["grad_norm"] == pytest.approx(norm, rel=1e-4)

    result = lighthouse_run(lighthouse, "train", **options)
    assert result.returncode == 0, result.stderr
    losses = [json.loads(line)["loss"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert losses[-1] < losses[0] - 0.5
    assert lighthouse_run(lighthouse, "export", run=tmp_path / "run", output=tmp_path / "out").returncode == 0
    trained = load_transformers(tmp_path / "out", dtype=torch.float64)(text[:, :-1]).logits[0]
    assert torch.nn.functional.cross_entropy(trained, text[0, 1:]).item() < losses[-1]


REFUSED = {
    "moe": ({"model_type": "qwen3_moe", "num_experts": 8}, "num_experts = 8", "mixtures of experts (MoE)"),
    "mla": ({"model_type": "deepseek_v3", "kv_lora_rank": 512}, "kv_lora_rank = 512", "latent attention (MLA) not; lighthouse_attention.huggingface has no such layers either"),
    "mistral-window": ({"model_type": "mistral", "sliding_window": 4096}, "sliding_window = 4096", "null"),
    "mistral-default-window": ({"model_type": "mistral"}, "sliding_window = (left out)", "4096"),
    "qwen-window": ({"model_type": "qwen2", "use_sliding_window": True}, "use_sliding_window = true", "false"),
    "layer-types": ({"layer_types": ["full_attention", "sliding_attention"]}, "layer_types", "full_attention"),
    "other": ({"model_type": "gemma3_text"}, 'model_type = "gemma3_text"', '"smollm3"'),
    "output-bias": ({"attention_bias": True}, "attention_bias = true", "only false is"),
    "longrope": ({"rope_scaling": {"type": "longrope"}}, 'type = "longrope"', "llama3"),
    "truncate": ({"rope_scaling": YARN | {"truncate": False}}, "truncate = false", "only true is"),
    "original-lengths": ({"rope_scaling": YARN, "original_max_position_embeddings": 128},
                         "original_max_position_embeddings = 128 and beside its rope_type 16", "contradict"),
    "rope-types": ({"rope_scaling": {"type": "linear", "rope_type": "yarn"}}, 'rope_type = "yarn"', "contradict"),
    "two-ropes": ({"rope_scaling": {"type": "linear", "factor": 2}, "rope_parameters": {"rope_type": "linear", "factor": 4}},
                  "rope_scaling and rope_parameters", "contradict"),
    "two-thetas": ({"rope_theta": 5.0, "rope_parameters": {"rope_type": "default", "rope_theta": 7.0}},
                   "rope_theta = 5", "contradict"),
    "no-factor": ({"rope_scaling": {"type": "linear"}}, "factor is missing", ""),
    "few-layers": ({"model_type": "smollm3", "no_rope_layers": [1]}, "no_rope_layers has 1 values", "3"),
}


@pytest.mark.parametrize("case", REFUSED.values(), ids=REFUSED)
def test_what_is_not_here_is_refused_by_name(lighthouse, tmp_path, case):
    keys, *texts = case
    (tmp_path / "config.json").write_text(json.dumps(SIZES | {"model_type": "llama"} | keys))
    (tmp_path / "model.safetensors").touch()
    result = lighthouse_run(lighthouse, "generate", model=tmp_path, prompt="a")
    assert result.returncode in (1, 2) and result.stderr.count("\n") == 1, result.stderr
    assert all(text in result.stderr for text in [*texts, "config.json"]), result.stderr


def test_configurations_of_transformers_4_read(export_fixture, tmp_path):
    """rope_theta and rope_scaling beside one another, as Llama 3.1 and Qwen2.5 were published."""
    if VERSION.major < 5:
        pytest.skip("the other tests read them")
    make(tmp_path / "model", "llama", rope=LLAMA3 | {"rope_theta": 500000.0})
    path = tmp_path / "model" / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    path.write_text(json.dumps(config | {"rope_theta": rope.pop("rope_theta"), "rope_scaling": rope}))
    run(export_fixture, "load", tmp_path / "model", tmp_path / "outputs.safetensors", tmp_path / "again")
    outputs = load_file(tmp_path / "outputs.safetensors")
    check_logits(outputs["logits"], *logits_and_bound(tmp_path / "model", outputs["tokens"]))
    written = json.loads((tmp_path / "again" / "config.json").read_text())
    assert (written["rope_theta"], written["rope_scaling"]) == (500000.0, rope)

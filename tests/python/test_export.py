"""Exported models in transformers: the same logits, the same greedy tokens; and transformers' models in ours."""

import json

import pytest
import torch
import transformers
from safetensors.torch import load_file, safe_open
from transformers_logits import check_logits, load_transformers, logits_and_bound, needs, rope_keys, rope_of, run

TINY = {"vocab_size": 97, "dim": 64, "num_layers": 2, "num_heads": 4, "num_kv_heads": 4, "head_dim": 16, "ffn_dim": 96,
        "init_std": 0.15, "rope_theta": 500000.0}
MODELS = {
    "llama": {},
    "tied": {"tie_embeddings": "true"},
    "gqa": {"num_kv_heads": 2},
    "mqa": {"num_kv_heads": 1},
    "theta": {"rope_theta": 10000.0},
    "wide-heads": {"head_dim": 24, "num_kv_heads": 2},
    "eps": {"rms_norm_eps": 0.01},
    "qwen3": {"family": "qwen3", "num_kv_heads": 2},
    "qwen3-tied": {"family": "qwen3", "tie_embeddings": "true", "head_dim": 32, "rope_theta": 10000.0},
}


def make(export_fixture, folder, dtype="fp32", **keys):
    needs(keys.get("family", "llama"))
    run(export_fixture, "make", folder, dtype, *(f"model.{key}={value}" for key, value in (TINY | keys).items()))
    return folder / "exported", load_file(folder / "outputs.safetensors")


def greedy_tokens(model, prompt):
    tokens = prompt[None]
    return model.generate(tokens, attention_mask=torch.ones_like(tokens), do_sample=False,
                          max_new_tokens=20)[0, len(prompt):]


@pytest.mark.parametrize("keys", MODELS.values(), ids=MODELS)
def test_transformers_computes_the_same(export_fixture, tmp_path, keys):
    folder, outputs = make(export_fixture, tmp_path, **keys)
    exact, bound = logits_and_bound(folder, outputs["tokens"])
    check_logits(outputs["logits"], exact, bound)
    model = load_transformers(folder)
    assert type(model).__name__ == ("Qwen3ForCausalLM" if "family" in keys else "LlamaForCausalLM")
    assert torch.equal(greedy_tokens(model, outputs["tokens"][0]), outputs["greedy"])


@pytest.mark.parametrize("keys", MODELS.values(), ids=MODELS)
def test_configuration_reads_back(export_fixture, tmp_path, keys):
    folder, _ = make(export_fixture, tmp_path, **keys)
    sizes = TINY | {"rms_norm_eps": 1e-5, "tie_embeddings": "false"} | keys
    config = transformers.AutoConfig.from_pretrained(folder)
    assert rope_of(config) == {"rope_theta": sizes["rope_theta"], "rope_type": "default"}
    assert config.head_dim == sizes["head_dim"]
    assert config.num_key_value_heads == sizes["num_kv_heads"]
    assert config.rms_norm_eps == sizes["rms_norm_eps"]
    assert config.tie_word_embeddings == (sizes["tie_embeddings"] == "true")
    assert (config.bos_token_id, config.eos_token_id, config.pad_token_id) == (None, None, None)
    assert json.loads((folder / "config.json").read_text())["rope_theta"] == sizes["rope_theta"]  # transformers 4
    generation = transformers.GenerationConfig.from_pretrained(folder)
    assert (generation.bos_token_id, generation.eos_token_id, generation.do_sample) == (None, None, True)


def test_weights_file(export_fixture, tmp_path):
    folder, _ = make(export_fixture, tmp_path, tie_embeddings="true")
    with safe_open(folder / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}
        assert "lm_head.weight" not in file.keys()


def test_bf16_weights_are_the_rounded_ones(export_fixture, tmp_path):
    full, _ = make(export_fixture, tmp_path / "fp32")
    rounded, _ = make(export_fixture, tmp_path / "bf16", dtype="bf16")
    assert load_transformers(rounded, dtype="auto").dtype == torch.bfloat16
    weights = load_file(full / "model.safetensors")
    for name, tensor in load_file(rounded / "model.safetensors").items():
        assert torch.equal(tensor, weights.pop(name).bfloat16()), name
    assert not weights


@pytest.mark.parametrize("shard_size", ["1GB", "50KB"])
@pytest.mark.parametrize("keys", [{}, {"tie_embeddings": True}, {"qk_norm": True}], ids=["llama", "tied", "qwen3"])
def test_models_of_transformers_load(export_fixture, tmp_path, keys, shard_size):
    family = "qwen3" if "qk_norm" in keys else "llama"
    needs(family)
    torch.manual_seed(3)
    config = transformers.AutoConfig.for_model(
        family, vocab_size=83, hidden_size=48, intermediate_size=80, num_hidden_layers=3, head_dim=20, num_attention_heads=4,
        num_key_value_heads=2, initializer_range=0.15, rms_norm_eps=1e-4, tie_word_embeddings=keys.get("tie_embeddings", False),
        bos_token_id=1, eos_token_id=2, **rope_keys({"rope_type": "default", "rope_theta": 31415.0}))
    model = transformers.AutoModelForCausalLM.from_config(config)
    for name, parameter in model.named_parameters():
        if "norm" in name:
            torch.nn.init.uniform_(parameter, 0.5, 1.5)
    model.save_pretrained(tmp_path / "model", max_shard_size=shard_size)
    assert (tmp_path / "model" / "model.safetensors").exists() == (shard_size == "1GB")

    run(export_fixture, "load", tmp_path / "model", tmp_path / "outputs.safetensors")
    outputs = load_file(tmp_path / "outputs.safetensors")
    check_logits(outputs["logits"], *logits_and_bound(tmp_path / "model", outputs["tokens"]))

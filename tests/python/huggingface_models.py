"""Tiny decoders of transformers, and what tests ask of them."""

import inspect
import sys

import pytest
import torch
import transformers
from huggingface_hub.errors import StrictDataclassError
from lighthouse_attention import huggingface

SIZES = dict(vocab_size=61, hidden_size=64, intermediate_size=96, num_hidden_layers=2, num_attention_heads=4,
             num_key_value_heads=2, head_dim=16, bos_token_id=1, eos_token_id=2, pad_token_id=0, attention_dropout=0.0)
MODELS = {"llama": transformers.LlamaConfig, "qwen3": transformers.Qwen3Config, "mistral": transformers.MistralConfig}

LENGTHS = [50, 1, 77]
OFFSETS = [0, 50, 51, 128]
POSITIONS = torch.cat([torch.arange(length) for length in LENGTHS])[None]
NUMBERS = torch.cat([torch.full((length,), number) for number, length in enumerate(LENGTHS, 1)])[None]
ONE_TILE = dict(topk=6, tile_topk=128, num_levels=2)  # each document has all of topk


def make(kind="llama", attention="lighthouse", **sizes):
    torch.manual_seed(3)
    return transformers.AutoModelForCausalLM.from_config(MODELS[kind](**(SIZES | sizes)), attn_implementation=attention)


def other(name, **sizes):
    """A decoder of another family, unless this transformers has none that works, or one that makes its masks itself."""
    kind = getattr(transformers, f"{name}Config", None) or pytest.skip(f"this transformers has no {name}")
    try:
        kind()
    except StrictDataclassError as error:  # Olmo2Config of transformers 5.4 under huggingface_hub 1.33
        pytest.skip(f"transformers {transformers.__version__} itself cannot make a {name}: {error}")
    torch.manual_seed(3)
    model = transformers.AutoModelForCausalLM.from_config(kind(**(SIZES | sizes)), attn_implementation="lighthouse")
    if "create_causal_mask" not in inspect.getsource(sys.modules[type(model).__module__]):
        pytest.skip(f"{name} of transformers {transformers.__version__} makes its masks itself")
    return model


def prepared(kind="llama", **options):
    return huggingface.prepare(make(kind), **(ONE_TILE | options))


def tokens(batch=2, seq_len=128, seed=0):
    """A text that can be learnt: each row counts with a step of its own."""
    start, step = torch.randint(3, 9, (2, batch, 1), generator=torch.Generator().manual_seed(seed))
    return (start + step * torch.arange(seq_len)) % 58 + 3


def noise(batch=2, seq_len=128, seed=0):
    return torch.randint(3, 61, (batch, seq_len), generator=torch.Generator().manual_seed(seed))


def logits_of(model, **inputs):
    with torch.no_grad():
        return model(use_cache=False, **inputs).logits


def warnings_of(call, monkeypatch):
    messages = []
    monkeypatch.setattr(huggingface.logger, "warning_once", messages.append)
    call()
    return messages

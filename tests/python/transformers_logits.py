"""Models of transformers, 4.48 and later, what their logits are, and how far those of the decoder may be from them."""

import subprocess

import pytest
import torch
import transformers
from packaging.version import Version

VERSION = Version(transformers.__version__)


def run(program, *arguments):
    subprocess.run([program, *map(str, arguments)], check=True, timeout=300)


def needs(family, rope=None):
    """Skips what came to transformers later than the version that is here."""
    if family not in transformers.CONFIG_MAPPING:
        pytest.skip(f"transformers {VERSION} has no {family}")
    if (rope or {}).get("rope_type") == "yarn" and VERSION < Version("4.57"):
        pytest.skip(f"transformers {VERSION} has other frequencies for yarn")


def rope_keys(rope):
    """Keys of a configuration for {"rope_theta", "rope_type", ...}."""
    if VERSION.major >= 5:
        return {"rope_parameters": rope}
    scaling = {key: value for key, value in rope.items() if key != "rope_theta"}
    return {"rope_theta": rope["rope_theta"], "rope_scaling": scaling if scaling["rope_type"] != "default" else None}


def rope_of(config):
    """The inverse."""
    if VERSION.major >= 5:
        return config.rope_parameters
    return {"rope_theta": config.rope_theta} | (getattr(config, "rope_scaling", None) or {"rope_type": "default"})


def load_transformers(folder, dtype=None, **options):
    options |= {} if dtype is None else {"dtype" if VERSION >= Version("4.56") else "torch_dtype": dtype}
    model, report = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, **options)
    assert not any(report.values()), report  # no missing, unexpected or mismatched weight
    return model.eval()


@torch.no_grad()
def logits_and_bound(folder, tokens):
    """Logits of the model in fp64, and how far another implementation may be from them in fp32: twice as far as
    transformers itself, in the worse of its two attention implementations, and one rounding of the largest logit."""
    exact = load_transformers(folder, dtype=torch.float64, attn_implementation="eager")(tokens).logits
    errors = [(load_transformers(folder, dtype=torch.float32, attn_implementation=attention)(tokens).logits - exact)
              .abs().max() for attention in ("eager", "sdpa")]
    bound = 2 * max(errors) + exact.abs().max() * torch.finfo(torch.float32).eps
    assert bound < 1e-4
    return exact, bound


def check_logits(ours, exact, bound):
    error = (ours - exact).abs()
    worst = error.argmax()
    assert error.max() <= bound, f"{ours.flatten()[worst]} should be {exact.flatten()[worst]} within {bound}"

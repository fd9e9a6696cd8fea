"""Logits of transformers' models, and how far those of the decoder may be from them."""

import subprocess

import torch
import transformers


def run(program, *arguments):
    subprocess.run([program, *map(str, arguments)], check=True, timeout=300)


def load_transformers(folder, **options):
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

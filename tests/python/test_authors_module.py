"""The comparison with the authors' module (experiments/authors_module), on a CPU and with a stand-in for their code."""
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "experiments/authors_module"
sys.path.insert(0, str(FOLDER))
import authors  # noqa: E402
import llama  # noqa: E402

TINY = {"training.device": "cpu", "training.precision": "fp32", "training.threads": 1, "training.seq_len": 512, "model.dim": 64,
        "model.num_layers": 2, "model.ffn_dim": 96, "model.head_dim": 32, "optimizer.warmup_steps": 2}
# With one level Lighthouse Attention is plain causal attention, and so is this.
STAND_IN = """
import torch
from einops import rearrange
from torchtitan.models.llama3.model.lighthouse_selection_cuda import NAME

class DialatedLighthouseNormScorer(torch.nn.Module):
    def __init__(self, pooling_factor, levels):
        super().__init__()

class LighthouseLocal(torch.nn.Module):
    def __init__(self, attention, scorer, num_levels, pooling_factor, topk):
        super().__init__()
        self.attention = attention

    def forward(self, q, k, v):
        return self.attention(q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2))
"""


@pytest.fixture
def checkout(tmp_path):
    (tmp_path / "checkout/src").mkdir(parents=True)
    (tmp_path / "checkout/src/lighthouse_selection_cuda.py").write_text("NAME = 'stand-in'\n")
    (tmp_path / "checkout/src/lighthouse_selection.py").write_text(STAND_IN)
    return tmp_path / "checkout"


def compare(lighthouse, output, *more, code=0, **options):
    settings = [f"{key}={value}" for key, value in (TINY | options).items()]
    command = [sys.executable, FOLDER / "compare.py", "--program", lighthouse, "--corpus", ROOT / "src/nn", "--output", output,
               "--steps", "5", *more, "--set", *settings]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=300,
                          env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONDONTWRITEBYTECODE": "1"})
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout + done.stderr


# All sums are those of fp32, in other orders: the loss of every step agrees only if weights, batches, rate and update do.
def test_the_curves_of_one_level_are_the_same(lighthouse, checkout, tmp_path):
    out = compare(lighthouse, tmp_path / "out", "--authors", checkout,
                  **{"attention.num_levels": 1, "attention.topk": 128})
    losses = json.loads((tmp_path / "out/curves.json").read_text())["losses"]
    assert set(losses) == {"trainer", "ours", "ours again", "ours, other kernel", "theirs"}
    assert losses["ours"][0] - losses["ours"][-1] > 0.1, "it learns"
    for name, curve in losses.items():
        assert curve == pytest.approx(losses["ours"], abs=2e-5), name
    assert "trainer - theirs" in out and "theirs - ours" in out


def test_batches_come_in_the_order_of_a_permutation():
    for size in (1, 2, 7, 300):
        assert sorted(llama.shuffled(size, 3)) == list(range(size))
    assert llama.shuffled(300, 3) != llama.shuffled(300, 4)


def test_limits_of_their_code_are_named():
    attention = {"scorer": "norm", "tile_topk": 128, "topk": 512, "num_levels": 3, "pooling_factor": 4, "cover_prefix": False,
                 "full_attention_layers": []}
    model = {"num_heads": 2, "num_kv_heads": 2}
    authors.check_limits(attention, model, 32768)
    for changes, seq_len, name in (({"topk": 192}, 32768, "topk"), ({"cover_prefix": True}, 32768, "cover_prefix"),
                                   ({"scorer": "gla"}, 32768, "norm"), ({}, 16384 + 16, "seq_len"), ({}, 4096, "seq_len"),
                                   ({"topk": 64}, 32768, "seq_len")):
        with pytest.raises(ValueError, match=name):
            authors.check_limits(attention | changes, model, seq_len)
    with pytest.raises(ValueError, match="num_kv_heads"):
        authors.check_limits(attention, {"num_heads": 2, "num_kv_heads": 1}, 32768)


def test_what_is_missing_is_said(lighthouse, tmp_path):
    with pytest.raises(FileNotFoundError, match="lighthouse_selection_cuda.py' is missing"):
        authors.load(tmp_path)
    assert "bytes, and" in compare(lighthouse, tmp_path / "out", code=1, **{"training.seq_len": 1 << 24})

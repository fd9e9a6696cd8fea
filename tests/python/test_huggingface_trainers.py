"""Losses of trainers that people use, on two and four Gloo ranks, are those of one process; what they train is in
trainer_context_cases.py."""

import functools

import pytest
import torch.distributed as dist

pytest.importorskip("transformers", minversion="5")
pytest.importorskip("accelerate")
pytest.importorskip("peft")
import trainer_context_cases  # noqa: E402
from ranks import run_ranks  # noqa: E402

if not dist.is_gloo_available():
    pytest.skip("this torch has no Gloo", allow_module_level=True)
NAMES = [name for name in trainer_context_cases.CASES if not name.startswith("sft")]  # those are in test_trl.py


@functools.cache
def losses_of(size):
    return run_ranks(size, trainer_context_cases.run, NAMES if size < 4 else ["trainer", "trainer-fsdp2"])


@pytest.mark.parametrize(("size", "name"), [*((2, name) for name in NAMES), (4, "trainer"), (4, "trainer-fsdp2")])
def test_losses(size, name):
    """Of every step, in both stages; two ranks share each row, or have rows of their own; two times two share."""
    [alone] = losses_of(1)
    assert len(alone[name]) == trainer_context_cases.STEPS
    for rank in losses_of(size):
        assert rank[name] == pytest.approx(alone[name], rel=1e-6)

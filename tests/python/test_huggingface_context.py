"""transformers with rows that two Gloo ranks share; what they run is in huggingface_context_cases.py."""

import functools

import pytest
import torch.distributed as dist

pytest.importorskip("transformers", minversion="5")
import huggingface_context_cases  # noqa: E402
from ranks import run_ranks  # noqa: E402

if not dist.is_gloo_available():
    pytest.skip("this torch has no Gloo", allow_module_level=True)


@functools.cache
def failures_of_two_ranks():
    return run_ranks(2, huggingface_context_cases.run_all)


@pytest.mark.parametrize("name", huggingface_context_cases.TESTS)
def test_ranks(name):
    failures = [f"rank {rank}:\n{failed[name]}" for rank, failed in enumerate(failures_of_two_ranks()) if failed[name]]
    assert not failures, "\n".join(failures)

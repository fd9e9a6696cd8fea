"""Context parallelism on 2, 3 and 4 Gloo ranks, each started once; what they run is in context_cases.py."""

import functools

import pytest
import context_cases
import torch.distributed as dist
from ranks import run_ranks

if not dist.is_gloo_available():
    pytest.skip("this torch has no Gloo", allow_module_level=True)


@functools.cache
def failures_of(size):
    return run_ranks(size, context_cases.run_all)


@pytest.mark.parametrize(("size", "name"), [(size, name) for size in (2, 3, 4) for name in context_cases.tests_for(size)])
def test_ranks(size, name):
    failures = [f"rank {rank}:\n{failed[name]}" for rank, failed in enumerate(failures_of(size)) if failed[name]]
    assert not failures, "\n".join(failures)

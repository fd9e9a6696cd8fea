"""Context parallelism on 2, 3 and 4 Gloo ranks, each started once; what they run is in context_cases.py and context_reports.py."""

import functools

import pytest
import context_cases
import context_reports
import torch.distributed as dist
from ranks import run_ranks

if not dist.is_gloo_available():
    pytest.skip("this torch has no Gloo", allow_module_level=True)


def cases_of(size):
    return context_cases.tests_for(size) | (context_reports.TESTS if size == 2 else {})


def run_all():
    return context_cases.run(cases_of(dist.get_world_size()))


@functools.cache
def failures_of(size):
    return run_ranks(size, run_all)


@pytest.mark.parametrize(("size", "name"), [(size, name) for size in (2, 3, 4) for name in cases_of(size)])
def test_ranks(size, name):
    failures = [f"rank {rank}:\n{failed[name]}" for rank, failed in enumerate(failures_of(size)) if failed[name]]
    assert not failures, "\n".join(failures)

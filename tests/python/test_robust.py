"""The short forms of the programs in tests/robust; docs/reliability.md has the numbers of the long ones."""

import importlib
import sys
from pathlib import Path

import pytest

from conftest import built

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "robust"))


def program(name):
    return importlib.import_module(name)


def test_the_safetensors_library_accepts_what_we_do(build_folder):
    pytest.importorskip("safetensors")
    built(build_folder / "tests" / "robust" / "read_safetensors")
    kinds, other = program("safetensors_mutants").compare(build_folder, 1000)
    assert not other, other[0]
    assert kinds["accepted by both"] > 100 and kinds["stands twice"] > 0


def test_signals_at_random_moments(lighthouse):
    assert sum(program("signals").experiment(lighthouse, 4, report=lambda line: None).values()) == 4


def test_memory_that_is_not_there(build_folder):
    built(build_folder / "tests" / "robust" / "libfail_allocation.so")
    assert sum(program("memory").experiment(build_folder, 3, report=lambda line: None).values()) == 3


def test_memory_of_the_host_does_not_grow(lighthouse):
    growth = program("growth")
    # Of so few steps most is what grows once; a leak of one activation a step would be more.
    assert growth.experiment(lighthouse, 400, report=lambda line: None) < 8 * growth.MOST_KIB

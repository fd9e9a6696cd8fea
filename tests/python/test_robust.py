"""The short forms of the programs in tests/robust; docs/reliability.md has the numbers of the long ones."""

import importlib.util
from pathlib import Path

import pytest

from conftest import built

ROBUST = Path(__file__).resolve().parents[1] / "robust"


def program(name):
    spec = importlib.util.spec_from_file_location(name, ROBUST / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_safetensors_library_accepts_what_we_do(build_folder):
    pytest.importorskip("safetensors")
    built(build_folder / "tests" / "robust" / "read_safetensors")
    kinds, other = program("safetensors_mutants").compare(build_folder, 1000)
    assert not other, other[0]
    assert kinds["accepted by both"] > 100 and kinds["stands twice"] > 0


def test_signals_at_random_moments(lighthouse):
    assert sum(program("signals").experiment(lighthouse, 4, report=lambda line: None).values()) == 4

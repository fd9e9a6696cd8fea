"""Loading, the report of python -m lighthouse_attention, and the plan."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import lighthouse_attention as lighthouse
from lighthouse_attention import __main__ as report
from lighthouse_attention import library


def run(*arguments, **environment):
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, timeout=120,
                          env=os.environ | environment)


def test_report():
    result = run("-m", "lighthouse_attention")
    assert result.returncode == 0, result.stdout + result.stderr
    assert torch.__version__ in result.stdout and "lighthouse::_select_entries" in result.stdout
    assert "everything fits together" in result.stdout


@pytest.mark.parametrize(("file", "message"), [("absent.so", "does not exist"), ("text.so", "built for another platform")])
def test_report_of_a_library_that_does_not_load(tmp_path, file, message):
    (tmp_path / "text.so").write_text("no library")
    result = run("-m", "lighthouse_attention", LIGHTHOUSE_LIBRARY=str(tmp_path / file))
    assert result.returncode == 1 and message in result.stdout and not result.stderr
    result = run("-c", "import lighthouse_attention", LIGHTHOUSE_LIBRARY=str(tmp_path / file))
    assert result.returncode == 1 and message in result.stderr


def test_old_torch_is_named(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.9.1+cu128")
    with pytest.raises(ImportError, match="torch is 2.9.1.*2.10 or newer.*pip install"):
        library._check_torch()


def test_the_torch_that_is_required_is_the_one_that_is_asked_for():
    pyproject = (Path(__file__).resolve().parents[2] / "pyproject.toml").read_text()
    assert 'dependencies = ["torch>={}.{}"]'.format(*library.MINIMUM_TORCH) in pyproject


BUILT = {"torch": "2.11.0", "cuda": "13.0", "architectures": "90a-real"}


@pytest.mark.parametrize(("built", "driver", "capability", "message"), [
    (BUILT, (13, 0), (9, 0), None),
    (BUILT, (13, 2), (9, 0), None),
    (BUILT | {"cuda": None}, (13, 0), (9, 0), "built without CUDA"),
    (BUILT, (12, 8), (9, 0), "need a driver for CUDA 13.0, this one knows CUDA 12.8"),
    (BUILT, None, (9, 0), "is not found"),
    (BUILT, (13, 0), (8, 0), "compiled for 90a-real, not for 80; .*LIGHTHOUSE_CUDA_ARCHITECTURES=80"),
    (BUILT | {"architectures": "80-real,90a-real"}, (13, 0), (8, 0), None),
    (BUILT | {"architectures": "75-real,80"}, (13, 0), (7, 5), "8.0 .A100, RTX 30. or newer, this one has 7.5.*CPU"),
])
def test_gpu_mismatches_are_named(built, driver, capability, message):
    import re
    problem = report.cuda_problem(built, driver, *capability)
    assert problem is None if message is None else re.search(message, problem)


@pytest.mark.parametrize(("target", "runs", "does_not"), [
    ("80-real", ["8.0", "8.6", "8.9"], ["9.0", "12.0"]), ("86-real", ["8.6", "8.9"], ["8.0"]), ("90a-real", ["9.0"], ["10.0"]),
    ("90a-virtual", ["9.0"], ["10.0"]), ("100-real", ["10.0", "10.3"], ["11.0", "12.0"]), ("100f-real", ["10.3"], ["12.0"]),
    ("120", ["12.0", "12.1", "13.0"], ["10.3"]), ("80-virtual", ["8.0", "9.0", "12.0"], []),
])
def test_what_code_for_a_gpu_runs_on(target, runs, does_not):
    assert [capability for capability in runs + does_not if report.runs_on(target, *map(int, capability.split(".")))] == runs


@pytest.mark.parametrize(("machine", "libc", "message"), [
    ("x86_64", "", "musl.*take Debian"), ("aarch64", "glibc", "for x86_64.*is aarch64.*not tested: build"),
    ("x86_64", "glibc", "another platform, or torch .* lacks")])
def test_platforms_are_named(machine, libc, message):
    import re
    assert re.search(message, library.platform_problem(machine, libc))


def test_plan_counts_rows():
    layout = (3, 2, 10, 4)
    gathered, _, rows = library.plan("test", 203, layout, [0, 1, 70, 70, 203])
    assert len(rows) == 4 and rows[2] == 0 and sum(rows) == gathered
    assert lighthouse.gathered_length(98304, num_levels=3, pooling_factor=4, topk=1536) == 98304 // 16 + 2 * 4 * 1536



"""What must fail does: a run of tests that were all skipped for want of a GPU, a library or a build has shown nothing."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
NO_GPU = {"CUDA_VISIBLE_DEVICES": "", "LIGHTHOUSE_TEST_DEVICE": "cuda"}


def run(*command, **environment):
    return subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=300, env=os.environ | environment)


def run_pytest(file, **environment):
    return run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", HERE / file, **environment)


@pytest.mark.parametrize("program", ["cuda/stages_cuda_test", "cuda/ops_cuda_test", "cuda/turned_gather_cuda_test"])
def test_a_gpu_that_is_required_must_be_there(build_folder, program):
    """Programs that skip each case, and those that run the CPU's tests on the device; stages_cuda_test knows no torch."""
    program = build_folder / "tests" / "cpp" / program
    if not program.exists():
        pytest.skip(f"{program} is not built")
    assert run(program, "--gtest_brief=1", **NO_GPU).returncode in (0, 77)
    required = run(program, "--gtest_brief=1", "--gtest_fail_fast", LIGHTHOUSE_REQUIRE_GPU="1", **NO_GPU)
    assert required.returncode not in (0, 77) and "LIGHTHOUSE_REQUIRE_GPU" in required.stdout + required.stderr


def test_a_gpu_that_is_required_must_be_there_in_python():
    assert run_pytest("test_gpu.py", **NO_GPU).returncode == 0
    required = run_pytest("test_gpu.py", LIGHTHOUSE_REQUIRE_GPU="1", **NO_GPU)
    assert required.returncode != 0 and "no GPU, and LIGHTHOUSE_REQUIRE_GPU is set" in required.stdout


def test_make_requires_a_gpu_and_finds_tests():
    """A build without CUDA has no tests of that label, and ctest calls that a success unless told otherwise."""
    commands = run("make", "-C", HERE.parents[1], "--dry-run", "--always-make", "gpu-test", "gpu-sanitize").stdout
    assert "ctest --test-dir build/release -L cuda --no-tests=error" in commands
    variables = run("make", "-C", HERE.parents[1], "--dry-run", "--print-data-base", "gpu-test").stdout
    assert variables.count("LIGHTHOUSE_REQUIRE_GPU := 1") >= 2


def test_no_file_skips_for_want_of_the_package():
    """A library that does not load is an error of every test that needs it."""
    skip = 'importorskip("lighthouse' + "_attention"
    assert not [file.name for file in HERE.glob("test_*.py") if skip in file.read_text()]


def test_a_library_that_does_not_load_fails_the_tests(tmp_path):
    (tmp_path / "text.so").write_text("no library")
    for path in (tmp_path / "text.so", tmp_path / "absent.so"):
        result = run_pytest("test_module.py", LIGHTHOUSE_LIBRARY=str(path))
        assert result.returncode != 0, result.stdout


def test_a_build_that_is_not_there_fails_the_tests(tmp_path):
    result = run_pytest("test_robust.py", LIGHTHOUSE_BUILD=str(tmp_path))
    assert result.returncode != 0 and "is not built; run `make build`" in result.stdout
    assert "skipped" in run_pytest("test_robust.py", LIGHTHOUSE_BUILD="none").stdout

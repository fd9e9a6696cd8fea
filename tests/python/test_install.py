"""What cmake --install lays down: another project finds it, compiles the examples in C++ against it, and they run."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import built

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"


def run(*command):
    result = subprocess.run([str(x) for x in command], capture_output=True, text=True, timeout=600)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


@pytest.fixture(scope="module")
def installed(build_folder, tmp_path_factory):
    if not shutil.which("cmake"):
        pytest.skip("no cmake")
    built(build_folder / "bin" / "lighthouse")
    prefix = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build_folder, "--prefix", prefix)
    return prefix


def test_the_examples_build_and_run(installed, tmp_path):
    run("cmake", "-S", EXAMPLES, "-B", tmp_path, f"-DCMAKE_PREFIX_PATH={installed}")
    run("cmake", "--build", tmp_path, "--parallel", "2")
    assert "1024 tokens, 192 rows attended to" in run(tmp_path / "stages")
    assert "torch" not in run("ldd", tmp_path / "stages")
    assert "4096 tokens, 2304 rows attended to" in run(tmp_path / "attention")


def test_the_program_runs_where_it_is_installed(installed):
    assert "lighthouse" in run(installed / "bin" / "lighthouse", "info")


def test_another_torch_is_named(installed, tmp_path):
    """Operators in C++ are of one torch; the stages are of none."""
    (tmp_path / "torch" / "lib").mkdir(parents=True)
    (tmp_path / "torch" / "lib" / "libtorch_cpu.so").touch()
    (tmp_path / "torch" / "version.py").write_text("__version__ = '2.3.1'\n")
    output = run("cmake", "-S", EXAMPLES, "-B", tmp_path / "build", f"-DCMAKE_PREFIX_PATH={installed}",
                 f"-DTORCH_ROOT={tmp_path}/torch")
    assert re.search(r"was built with torch 2\.\d+.*is torch\s+2\.3\.1", output, re.DOTALL)


def test_the_snippet_of_the_readme_is_of_an_example():
    [snippet] = re.findall(r"```cpp\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    lines = [line.strip() for line in (EXAMPLES / "attention.cpp").read_text().splitlines()]
    assert all(line.strip() in lines for line in snippet.splitlines())

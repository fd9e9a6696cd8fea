"""For which GPUs the kernels are compiled: cmake/CudaArchitectures.cmake, beside GPUs that a stand-in for nvidia-smi names."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULE = ROOT / "cmake" / "CudaArchitectures.cmake"
ALL = "80-real;86-real;89-real;90a-real;100-real;103-real;120"


@pytest.fixture
def architectures(tmp_path):
    if not shutil.which("cmake"):
        pytest.skip("no cmake")
    script = tmp_path / "print.cmake"
    script.write_text(f'include("{MODULE}")\nmessage("{{${{LIGHTHOUSE_GPUS}}}} {{${{CUDA_ARCHITECTURES}}}}")\n')

    def ask(gpus, asked="native"):
        """(GPUs, architectures), or the text of an error; gpus: what nvidia-smi prints, None where it fails."""
        smi = tmp_path / "nvidia-smi"
        smi.write_text("#!/bin/sh\n" + ("echo 'No devices were found'; exit 6\n" if gpus is None else f"printf '{gpus}'\n"))
        smi.chmod(0o755)
        result = subprocess.run(["cmake", f"-DNVIDIA_SMI={smi}", f"-DLIGHTHOUSE_CUDA_ARCHITECTURES={asked}", "-P", script],
                                capture_output=True, text=True, timeout=60)
        output = " ".join(result.stderr.split())
        return output if result.returncode else re.search(r"\{(.*)\} \{(.*)\}", output).groups() + (output,)

    return ask


@pytest.mark.parametrize(("gpus", "found", "expected"), [
    (None, "", "90a-real"), ("9.0\\n9.0\\n", "9.0", "90a-real"), ("8.0\\n8.6\\n", "8.0;8.6", "80-real;86-real"),
    ("12.0\\n", "12.0", "120-real"), ("10.3\\n9.0\\n", "10.3;9.0", "103-real;90a-real")])
def test_those_of_this_machine_or_hopper(architectures, gpus, found, expected):
    assert architectures(gpus)[:2] == (found, expected)


def test_gpus_that_are_too_old_are_left_out_with_a_warning(architectures):
    found, expected, output = architectures("7.5\\n8.9\\n")
    assert (found, expected) == ("7.5;8.9", "89-real")
    assert "compute capability 7.5; the kernels need 8.0" in output


def test_lists_are_taken_as_they_are(architectures):
    assert architectures(None, "all")[1] == ALL
    assert architectures("9.0\\n", "80-virtual")[1] == "80-virtual"
    assert architectures("9.0\\n", "80-real;100f-real;120")[1] == "80-real;100f-real;120"


@pytest.mark.parametrize("asked", ["75-real", "sm_90", "hopper", "80-real;70"])
def test_what_is_no_architecture_is_named(architectures, asked):
    assert f"has '{asked.split(';')[-1]}'; it must be native, all, or a list of architectures" in architectures(None, asked)


def test_the_table_of_gpus_is_that_of_the_build():
    rows = re.findall(r"^\| (\d+a?) \|.*\| (yes|no)[^|]*\|$", (ROOT / "docs" / "python.md").read_text(), re.MULTILINE)
    names = re.findall(r"\d+a?", re.search(r"WHEEL_ARCHITECTURES (.*)\)", MODULE.read_text())[1])
    run = re.search(r"ARCHITECTURES_RUN (.*)\)", MODULE.read_text())[1].split()
    assert [name for name, _ in rows] == names
    assert [name for name, was_run in rows if was_run == "yes"] == run

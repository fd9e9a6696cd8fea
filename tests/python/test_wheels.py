"""A person's way: both wheels into an empty environment, a run, an example; without a compiler. The wheels are those in the folder
LIGHTHOUSE_WHEELS (dist/, of make wheel), or else made here: the package's from its sdist without CUDA, the program's of the build.
torch is not installed again: the environment sees the packages of the tests behind its own."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, built

PACKAGING = ROOT / "packaging" / "cli"
NEWEST = {"GLIBC": (2, 28), "GLIBCXX": (3, 4, 24), "CXXABI": (1, 3, 11)}  # of manylinux_2_28


def run(*command, code=0, **settings):
    result = subprocess.run([str(word) for word in command], capture_output=True, text=True, timeout=600, **settings)
    assert result.returncode == code, result.stdout + result.stderr
    return result.stdout + result.stderr


def pip(*arguments, **settings):
    return run(sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments, **settings)


def pip_wheel(folder, source, **definitions):
    options = [f"--config-settings=cmake.define.{name}={value}" for name, value in definitions.items()]
    pip("wheel", "--no-build-isolation", "--no-deps", "--no-cache-dir", "--wheel-dir", folder, *options, source)


def torch_folder():
    return Path(importlib.util.find_spec("torch").origin).parent


def compiler_is_of_debian_12():
    compiler = shutil.which("c++")
    return bool(compiler) and run(compiler, "-dumpversion").strip() == "12"


def build_wheels(build_folder, folder):
    pytest.importorskip("scikit_build_core")
    built(build_folder / "bin" / "lighthouse")
    sdist = run(sys.executable, "-c", f"import scikit_build_core.build as b; print(b.build_sdist({str(folder)!r}))", cwd=ROOT).split()[-1]
    strict = "ON" if compiler_is_of_debian_12() else "OFF"
    pip_wheel(folder, folder / sdist, LIGHTHOUSE_CUDA="OFF", LIGHTHOUSE_MANYLINUX=strict, LIGHTHOUSE_WERROR=strict,
              TORCH_ROOT=torch_folder())
    pip_wheel(folder, PACKAGING, LIGHTHOUSE_BUILD=build_folder)


@pytest.fixture(scope="module")
def wheels(build_folder, tmp_path_factory):
    if "LIGHTHOUSE_WHEELS" in os.environ:
        folder = Path(os.environ["LIGHTHOUSE_WHEELS"]).resolve()
    else:
        folder = tmp_path_factory.mktemp("wheels")
        build_wheels(build_folder, folder)
    found = sorted(folder.glob("*.whl"))
    assert [file.name.split("-")[0] for file in found] == ["lighthouse_attention", "lighthouse_attention_cli"], found
    return found


class Environment:
    """A virtual environment with both wheels, and a PATH on which nothing else is."""

    def __init__(self, folder, wheels):
        run(sys.executable, "-m", "venv", "--without-pip", folder)
        self.bin = folder / "bin"
        pip("--python", self.bin / "python", "install", "--no-index", "--no-deps", *wheels)
        [self.packages] = folder.glob("lib/python*/site-packages")
        self.variables = {"PATH": str(self.bin), "HOME": str(folder), "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "2")}
        (self.packages / "tests.pth").write_text(f"{torch_folder().parent}\n")

    def run(self, command, *arguments, code=0, cwd=None, **variables):
        return run(self.bin / command, *arguments, code=code, cwd=cwd or self.bin, env=self.variables | variables)


@pytest.fixture(scope="module")
def environment(wheels, tmp_path_factory):
    return Environment(tmp_path_factory.mktemp("environment"), wheels)


@pytest.fixture
def texts(tmp_path):
    (tmp_path / "texts").mkdir()
    for page in (ROOT / "docs").glob("*.md"):
        shutil.copy(page, tmp_path / "texts")
    return tmp_path / "texts"


TINY = ["--model.preset", "tiny", "--training.seq_len", "256", "--training.steps", "4", "--training.lighthouse_steps", "3",
        "--optimizer.warmup_steps", "1", "--attention.topk", "8", "--logging.run_dir", "run"]


def test_what_the_wheels_require_is_there(environment):
    wanted = ["lighthouse-attention", "lighthouse-attention-cli"]
    pip("--python", environment.bin / "python", "install", "--no-index", "--dry-run", *wanted)
    [pin] = re.findall(r'"torch==(\S+)\.\*"', (PACKAGING / "pyproject.toml").read_text())
    assert re.search(rf"^torch=={re.escape(pin)}\.\d+$", (ROOT / "requirements.txt").read_text(), re.MULTILINE)


def test_the_package_says_that_it_fits(environment):
    report = environment.run("python", "-m", "lighthouse_attention", CUDA_VISIBLE_DEVICES="")
    assert "everything fits together" in report and str(environment.packages) in report
    assert "LIGHTHOUSE_WHEELS" in os.environ or "without CUDA" in report


def test_the_quickstart_runs(environment):
    assert re.search(r"step 60: loss \d", environment.run("python", ROOT / "examples" / "quickstart.py"))


def test_the_program_trains_on_a_folder_of_text(environment, texts):
    assert environment.run("lighthouse", "--version").startswith("lighthouse ")
    environment.run("lighthouse", "train", "--data.path", texts, *TINY, cwd=texts.parent)
    steps = [json.loads(line) for line in (texts.parent / "run" / "metrics.jsonl").read_text().splitlines()]
    assert max(line.get("step", 0) for line in steps) == 4
    assert environment.run("lighthouse", "generate", "--run", "run", "--prompt", "The", "--max-tokens", "4", cwd=texts.parent)


def test_processes_that_the_program_starts_find_torch_too(environment, texts):
    environment.run("lighthouse", "launch", "-n", "2", "train", "--data.path", texts, *TINY, "--training.device", "cpu",
                    "--training.gradient_accumulation", "2", cwd=texts.parent)
    assert (texts.parent / "run" / "metrics.jsonl").exists()


@pytest.mark.parametrize("file", ["lighthouse_attention/liblighthouse_stable.so", "lighthouse_attention_cli/liblighthouse_ops.so",
                                  "lighthouse_attention_cli/lighthouse"])
def test_files_of_the_wheels_know_no_folder_of_this_machine(environment, file):
    output = run("readelf", "--wide", "--dynamic", environment.packages / file)
    assert re.findall(r"(?:RUNPATH|RPATH).*\[(.*)\]", output) in ([], ["$ORIGIN"], [""])


def test_nothing_newer_than_manylinux_2_28_is_asked_for(environment):
    files = [environment.packages / "lighthouse_attention" / "liblighthouse_stable.so"]
    if "LIGHTHOUSE_WHEELS" in os.environ:  # else the program is that of the build
        files += [environment.packages / "lighthouse_attention_cli" / name for name in ("liblighthouse_ops.so", "lighthouse")]
    elif not compiler_is_of_debian_12():
        pytest.skip("wheels are made with g++ 12 (Debian 12)")
    for file in files:
        asked = re.findall(r"\b(GLIBC|GLIBCXX|CXXABI)_([\d.]+)", run("readelf", "--wide", "--version-info", file))
        assert asked and [version for version in asked if tuple(map(int, version[1].split("."))) > NEWEST[version[0]]] == []


def torch_of(folder, version, *libraries):
    (folder / "torch" / "lib").mkdir(parents=True)
    (folder / "torch" / "__init__.py").touch()
    (folder / "torch" / "version.py").write_text(f"__version__ = '{version}'\n")
    for name in libraries:
        (folder / "torch" / "lib" / name).touch()
    return folder


def test_another_torch_is_named(environment, tmp_path):
    folder = torch_of(tmp_path, "2.12.0+cu130")
    output = environment.run("lighthouse", "--version", code=1, PYTHONPATH=str(folder))
    assert output == (f"lighthouse: torch is 2.12.0+cu130, in {folder}/torch; this program needs torch 2.11, whose C++ interface it uses: "
                      "pip install 'torch==2.11.*'\n")


def test_a_torch_without_the_libraries_is_named(environment, tmp_path):
    output = environment.run("lighthouse", "--version", code=1, PYTHONPATH=str(torch_of(tmp_path, "2.11.0+cpu", "libc10.so")))
    assert re.fullmatch(r"lighthouse: torch, in \S+, comes without .*libtorch_cpu.so.*: install the torch of PyPI, .*==2.11.\*'\n", output)


def test_no_torch_is_named(environment):
    output = environment.run("python", "-S", "-m", "lighthouse_attention_cli", code=1, PYTHONPATH=str(environment.packages))
    assert re.fullmatch(r"lighthouse: this Python has no torch \(\S+\); this program needs torch 2.11: pip install '\S+'\n", output)


@pytest.fixture
def launcher(environment, monkeypatch):
    monkeypatch.syspath_prepend(environment.packages)
    from lighthouse_attention_cli import launcher
    return launcher


def test_what_is_set_already_is_kept(launcher, monkeypatch):
    monkeypatch.delenv("LD_LIBRARY_PATH", raising=False)
    monkeypatch.delenv("LIGHTHOUSE_PYTHON", raising=False)
    given = launcher.variables([Path("/a"), Path("/b")])
    assert (given["LD_LIBRARY_PATH"], given["LIGHTHOUSE_PYTHON"]) == ("/a:/b", sys.executable)
    monkeypatch.setenv("LD_LIBRARY_PATH", "/mine")
    monkeypatch.setenv("LIGHTHOUSE_PYTHON", "python3.9")
    given = launcher.variables([Path("/a")])
    assert (given["LD_LIBRARY_PATH"], given["LIGHTHOUSE_PYTHON"]) == ("/a:/mine", "python3.9")


@pytest.mark.parametrize(("machine", "libc", "message"), [
    ("x86_64", "", "needs glibc.*musl.*take Debian"), ("aarch64", "glibc", "built for x86_64.*is aarch64.*from source"),
    ("x86_64", "glibc", "install the package again")])
def test_platforms_are_named(launcher, machine, libc, message):
    assert re.search(message, launcher.platform_problem(machine, libc))


def test_a_program_that_does_not_start_is_named(launcher, monkeypatch, capsys, tmp_path):
    program = tmp_path / "lighthouse"
    program.write_text("no program")
    program.chmod(0o755)
    monkeypatch.setattr(launcher, "PROGRAM", program)
    assert launcher.main() == 1
    assert re.fullmatch(rf"lighthouse: {program} does not start: Exec format error; .*\n", capsys.readouterr().err)

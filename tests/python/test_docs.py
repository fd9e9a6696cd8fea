"""What users copy: quickstart, examples, notebook, the porting checker."""

import contextlib
import io
import json
import os
import re
import subprocess
import sys
import types
from pathlib import Path

import pytest
import lighthouse_attention as lighthouse
from ranks import run_program, run_ranks

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, **options):
    result = subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, cwd=ROOT,
                            **options)
    return result.returncode, result.stdout, result.stderr


def losses(output):
    return [float(line.split()[-1]) for line in output.splitlines() if line.startswith("step ")]


def test_quickstart_is_the_one_in_the_documentation():
    code = (ROOT / "examples" / "quickstart.py").read_text()
    assert f"```python\n{code}```" in (ROOT / "docs" / "python.md").read_text()
    assert sum(bool(line.strip()) for line in code.splitlines()) <= 22


def test_quickstart_learns():
    status, output, errors = run(ROOT / "examples" / "quickstart.py")
    assert status == 0, errors
    assert losses(output)[-1] < 0.6 * losses(output)[0]


def test_huggingface_example():
    pytest.importorskip("transformers", minversion="5")
    status, output, errors = run(ROOT / "examples" / "huggingface.py", "--steps", 6, "--stage-one", 4)
    assert status == 0, errors
    assert "stage two" in output and losses(output)[-1] < losses(output)[0]


def test_inner_attention_example(tmp_path):
    # torch keeps compiled kernels under /tmp, with memory for the threads of the process that compiled them: run with more
    # they write beyond it.
    environment = os.environ | {"TORCHINDUCTOR_CACHE_DIR": str(tmp_path)}
    status, output, errors = run(ROOT / "examples" / "inner_attention.py", env=environment)
    assert status == 0, errors
    lines = [line for line in output.splitlines() if "largest difference" in line]
    assert len(lines) >= 2 and all(float(line.split()[-1]) < 1e-2 for line in lines)


def test_context_parallel_example():
    """The command of docs/parallel.md, for fewer steps."""
    pytest.importorskip("transformers", minversion="5")
    [(size, program, arguments)] = re.findall(r"^    torchrun --nproc_per_node=(\d+) (examples\S+) (.*)$",
                                              (ROOT / "docs" / "parallel.md").read_text(), re.MULTILINE)
    arguments = [*arguments.split(), "--steps", "8", "--stage-one", "6"]
    output, *others = run_ranks(int(size), run_program, str(ROOT / program), arguments, with_group=False)
    assert len(losses(output)) == 8 and losses(output)[-1] < losses(output)[0] and others == [""]


def test_context_parallel_snippet():
    [code] = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "parallel.md").read_text(), re.DOTALL)
    assert run_ranks(2, exec, code, {}) == [None, None]


def test_notebook_runs():
    notebook = json.loads((ROOT / "examples" / "pyramid.ipynb").read_text())
    shown = []
    display = types.ModuleType("IPython.display")
    display.HTML, display.display = str, shown.append
    modules = {"IPython": types.ModuleType("IPython"), "IPython.display": display}
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(io.StringIO()) as output:
        patch.chdir(ROOT / "examples")
        for name, module in modules.items():
            patch.setitem(sys.modules, name, module)
        names = {}
        for index, cell in enumerate(notebook["cells"]):
            if cell["cell_type"] == "code":
                assert not cell["outputs"], f"cell {index} is committed with its output"
                exec(compile("".join(cell["source"]), f"cell {index}", "exec"), names)
    assert "causal by row, and no token is lost" in output.getvalue()
    assert shown[0].startswith("<pre") and shown[1].startswith("<svg")


def test_porting_checker_accepts_this_implementation():
    status, output, errors = run(ROOT / "scripts" / "check_port.py", "examples.port:lighthouse")
    assert status == 0, output + errors
    assert "14 of 14 results are right" in output


def test_porting_checker_names_what_is_wrong(tmp_path):
    (tmp_path / "wrong.py").write_text(
        "from examples.port import lighthouse\n"
        "def port(*arguments, **options):\n"
        "    results = lighthouse(*arguments, **options)\n"
        "    results['selection'][0, 1, 7] += 1\n"
        "    results['o'][0, 5, 1, 3] += 1\n"
        "    return {name: results[name] for name in ('selection', 'o')}\n")
    path = os.pathsep.join([str(tmp_path), str(ROOT), os.environ.get("PYTHONPATH", "")])
    status, output, _ = run(ROOT / "scripts" / "check_port.py", "wrong:port", "--case", "a", env=os.environ | {"PYTHONPATH": path})
    assert status == 1 and "0 of 4 results are right" in output
    assert "first at (batch, head, row) (0, 1, 7)" in output and "(0, 5, 1, 3)" in output


def test_examples_of_make_train_are_configurations_that_hold(lighthouse):
    examples = [options for page in ("Makefile", "docs/development.md")
                for options in re.findall(r'make train ARGS="([^"]*)"', (ROOT / page).read_text())]
    assert len(examples) == 2
    for options in examples:
        result = subprocess.run([lighthouse, "train", "--config", "configs/quick.toml", "--print-config", *options.split()],
                                capture_output=True, text=True, timeout=60, cwd=ROOT)
        assert result.returncode == 0, result.stderr


def test_the_choice_of_tests_in_the_documentation_selects_some():
    [word] = re.findall(r"pytest tests/python -k (\w+)", (ROOT / "docs" / "development.md").read_text())
    names = re.findall(r"^def (test_\w+)", "".join(path.read_text() for path in (ROOT / "tests" / "python").glob("test_*.py")),
                       re.MULTILINE)
    assert 1 <= sum(word in name for name in names) < 20


def test_training_names_every_key_of_the_metrics():
    page = (ROOT / "docs" / "training.md").read_text()
    source = (ROOT / "src" / "train" / "metrics.cpp").read_text()
    source = source[source.index("to_json(const StepRecord") : source.index("scalars(const StepRecord")]
    keys = set(re.findall(r'\{"(\w+)", record', source)) | set(re.findall(r'json\["(\w+)"\]', source))
    assert {"time", "switch", "validation_loss", "peak_memory"} <= keys
    assert [key for key in sorted(keys) if f"`{key}`" not in page] == []
    for word in ("lock", "--resume never"):
        assert word in page

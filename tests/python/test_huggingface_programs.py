"""transformers in whole programs: versions, imports, the switch of several models, scoring, tracing."""

import copy
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

transformers = pytest.importorskip("transformers", minversion="5")
from huggingface_models import logits_of, make, noise, prepared, warnings_of  # noqa: E402
from lighthouse_attention import __main__ as report  # noqa: E402
from lighthouse_attention import huggingface, versions  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]


def run(*arguments, **environment):
    return subprocess.run([sys.executable, *map(str, arguments)], capture_output=True, text=True, timeout=300, env=os.environ | environment)


# Versions and imports.


@pytest.mark.parametrize(("version", "fits"), [("4.57.3", False), ("4.48.0", False), ("5.0.0", False), ("5.3.0", False), ("5.4.0rc1", True), ("5.4.0", True),
                                               ("5.24.0", True), ("5.100.0.dev0", True), ("6.0.0", False)])
def test_transformers_that_does_not_fit_is_named(version, fits, monkeypatch, capsys):
    monkeypatch.setattr(sys.modules["transformers"], "__version__", version)  # which is not always the one imported above
    monkeypatch.setattr(report, "version_of", lambda package: version if package == "transformers" else "not installed")
    monkeypatch.delitem(sys.modules, "lighthouse_attention.huggingface")
    words = f"transformers is {version}; it must be 5.4 or newer, and older than 6: pip install 'transformers>=5.4,<6'"
    if fits:
        assert versions.transformers_problem(version) is None and report.main() == 0
        return
    with pytest.raises(ImportError, match=words.replace(".", "[.]")):
        importlib.import_module("lighthouse_attention.huggingface")
    assert report.main() == 1 and "problem: lighthouse_attention.huggingface: " + words in capsys.readouterr().out


def test_the_range_is_that_of_the_extra():
    tomllib = pytest.importorskip("tomllib")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    oldest, beyond = versions.TRANSFORMERS
    assert extras["huggingface"][0] == f"transformers>={oldest},<{beyond}"
    assert any(package.startswith("accelerate") for package in extras["huggingface"])  # transformers.Trainer needs it


IMPORTED_AGAIN = """
import importlib, sys, torch, transformers
import lighthouse_attention
from lighthouse_attention import huggingface
from huggingface_models import logits_of, noise, prepared
model = prepared("qwen3").eval()
expected = logits_of(model, input_ids=noise())
for name in [name for name in sys.modules if name.startswith("lighthouse_attention")]:
    del sys.modules[name]
import lighthouse_attention as again
import lighthouse_attention.huggingface as huggingface_again
assert again is not lighthouse_attention and huggingface_again is not huggingface
assert torch.equal(logits_of(model, input_ids=noise()), expected)  # of the first import
assert torch.equal(logits_of(prepared("qwen3").eval(), input_ids=noise()), expected)
q = torch.randn(1, 64, 2, 8, requires_grad=True)
again.lighthouse_attention(q, q, q, topk=4).sum().backward()
for module in (again, again.library, huggingface_again):
    importlib.reload(module)
assert torch.equal(logits_of(model, input_ids=noise()), expected)
assert len(torch.nn.modules.module._global_module_registration_hooks) == 1
try:
    importlib.reload(again.operators)
except ImportError as error:
    print(error)
"""


def test_the_package_can_be_imported_again():
    result = run("-c", IMPORTED_AGAIN, PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")]))
    assert result.returncode == 0, result.stderr
    assert "this process has the operators already" in result.stdout and "liblighthouse_ops" not in result.stdout


PROGRAM = """
import sys, transformers
model = transformers.AutoModelForCausalLM.from_config(transformers.LlamaConfig(vocab_size=9, hidden_size=8, intermediate_size=8,
    num_hidden_layers=1, num_attention_heads=1), attn_implementation="lighthouse")
print(__name__, sys.argv[1:], model.config._attn_implementation)
"""


@pytest.mark.parametrize("way", ["file", "module", "command"])
def test_a_program_that_does_not_import_the_package(way, tmp_path, monkeypatch, capsys):
    file = tmp_path / "program.py"
    file.write_text(f"#!{sys.executable}\n{PROGRAM}")
    file.chmod(0o755)
    program = {"file": [str(file)], "module": ["-m", "program"], "command": ["program.py"]}[way]
    if way == "file":
        result = run("-m", "lighthouse_attention", "run", *program, "--some", "argument")
        assert result.returncode == 0, result.stderr
        output = result.stdout
    else:
        monkeypatch.setattr(sys, "argv", [])
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
        assert report.run([*program, "--some", "argument"]) == 0
        output = capsys.readouterr().out
    assert output == "__main__ ['--some', 'argument'] lighthouse\n"


@pytest.mark.parametrize("arguments", [[], ["-m"]])
def test_run_says_how_it_is_used(arguments, capsys):
    assert report.run(arguments) == 2 and "usage: python -m lighthouse_attention run" in capsys.readouterr().err


def test_run_names_a_program_that_is_not_there(capsys):
    assert report.run(["no_such_program.py"]) == 2 and "no_such_program.py" in capsys.readouterr().err


# The switch of several models.


def step(callback, global_step, model):
    callback.on_step_begin(None, transformers.TrainerState(global_step=global_step), None, model=model)


@pytest.mark.parametrize("wrap", [lambda model: model, lambda model: torch.optim.swa_utils.AveragedModel(model)], ids=["model", "wrapped"])
def test_a_reference_switches_with_the_model(wrap):
    """As in DPO: the same weights have the same logits in both stages."""
    model = prepared("qwen3").eval()
    reference = wrap(copy.deepcopy(model))
    callback = huggingface.SwitchToDense(2, reference)
    for global_step in range(4):
        step(callback, global_step, model)
        assert model.config._attn_implementation == ("lighthouse" if global_step < 2 else "sdpa")
        assert torch.equal(logits_of(reference, input_ids=noise()), logits_of(model, input_ids=noise()))


def test_others_switch_where_the_model_is_dense_already():
    model, reference = make(attention="sdpa"), make()
    step(huggingface.SwitchToDense(0, reference), 5, model)
    assert reference.config._attn_implementation == "sdpa"


@pytest.mark.parametrize("when", ["loaded", "prepared"])
def test_a_model_that_lets_no_attention_be_chosen_is_refused(when):
    """transformers takes the name, and the model runs as it always does."""
    config = transformers.BloomConfig(vocab_size=61, hidden_size=64, n_layer=2, n_head=4)
    with pytest.raises(ValueError, match="BloomModel computes its attention itself"):
        if when == "loaded":
            transformers.AutoModelForCausalLM.from_config(config, attn_implementation="lighthouse")
        else:
            huggingface.prepare(transformers.AutoModelForCausalLM.from_config(config, attn_implementation="eager"), topk=4)


# Scoring and tracing.


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_scoring_in_stage_one_warns(kind, monkeypatch):
    model = prepared(kind)
    assert not warnings_of(lambda: logits_of(model.train(), input_ids=noise()), monkeypatch)
    messages = warnings_of(lambda: logits_of(model.eval(), input_ids=noise()), monkeypatch)
    assert "looks ahead" in messages[0] and "set_attn_implementation('sdpa')" in messages[0] and "never prepared" not in messages[0]
    assert len(set(messages)) == 1  # warning_once says each once
    model.set_attn_implementation("sdpa")
    assert not warnings_of(lambda: logits_of(model, input_ids=noise()), monkeypatch)
    dense = prepared(kind, full_attention_layers=[0, 1]).eval()
    assert not warnings_of(lambda: logits_of(dense, input_ids=noise()), monkeypatch)


def test_the_warning_is_given_once(monkeypatch):
    messages = []
    monkeypatch.setattr(huggingface.logger, "warning", lambda message, *arguments, **options: messages.append(message))
    type(huggingface.logger).warning_once.cache_clear()
    model = prepared().eval()
    for seed in range(3):
        logits_of(model, input_ids=noise(seed=seed))
    assert len(messages) == 1


class Logits(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, input_ids, attention_mask=None):
        return self.model(input_ids=input_ids, attention_mask=attention_mask, use_cache=False).logits


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_tracing_is_refused_in_words(kind, packed, mask):
    inputs = (noise(1), torch.ones(1, 128).long()) if mask else (noise(1),)
    with pytest.raises(NotImplementedError, match="torch.jit.trace.*not supported.*torch.export with prepare.model, packed=False"):
        torch.jit.trace(Logits(prepared(kind, packed=packed).eval()), inputs)


@pytest.mark.parametrize("kind", ["llama", "qwen3"])
def test_export(kind):
    model = Logits(prepared(kind, packed=False).eval())
    exported = torch.export.export(model, (noise(1),))
    assert torch.equal(exported.module()(noise(1, seed=1)), model(noise(1, seed=1)))

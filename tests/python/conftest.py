"""Where the build is: LIGHTHOUSE_BUILD, or build/release; `none` skips the tests that need one. The Python package is the
installed one, or else python/ with the library of the build."""

import importlib.util
import os
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BUILD = Path(os.environ.get("LIGHTHOUSE_BUILD", ROOT / "build" / "release")).resolve()
LIGHTHOUSE = Path(os.environ.get("LIGHTHOUSE_BIN", BUILD / "bin" / "lighthouse")).resolve()
# c10d asks for the name of every address that it connects to. Where a name server does not answer, a rank stands still for five
# seconds at a time.
os.environ.setdefault("RES_OPTIONS", "timeout:1 attempts:1")
if importlib.util.find_spec("lighthouse_attention") is None:
    os.environ.setdefault("LIGHTHOUSE_LIBRARY", str(BUILD / "src" / "stable" / "liblighthouse_stable.so"))
    os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT / "python"), *filter(None, [os.environ.get("PYTHONPATH")])])
    sys.path.insert(0, str(ROOT / "python"))


def built(path):
    """`path`, a file of the build."""
    if not path.exists():
        if os.environ.get("LIGHTHOUSE_BUILD") == "none":
            pytest.skip("LIGHTHOUSE_BUILD is none")
        pytest.fail(f"{path} is not built; run `make build`, or set LIGHTHOUSE_BUILD to another build, or to none")
    return path


@pytest.fixture(scope="session")
def build_folder():
    return BUILD


@pytest.fixture(scope="session")
def cpp(build_folder):
    """torch.ops.lighthouse_cpp: attention and token_scores of the C++ library, by tests/cpp/ops/python_operators.cpp."""
    torch = pytest.importorskip("torch")
    torch.ops.load_library(built(build_folder / "tests" / "cpp" / "ops" / "liblighthouse_python_operators.so"))
    return torch.ops.lighthouse_cpp


@pytest.fixture(scope="session")
def export_fixture(build_folder):
    """The program of tests/cpp/model/export_fixture.cpp."""
    return built(build_folder / "tests" / "cpp" / "model" / "export_fixture")


@pytest.fixture(scope="session")
def lighthouse():
    """The program, at LIGHTHOUSE_BIN or in the build."""
    return built(LIGHTHOUSE)


@pytest.fixture
def fresh_compiler():
    torch = pytest.importorskip("torch")
    torch.compiler.reset()
    with torch.compiler.config.patch(force_disable_caches=True):  # graphs on disk know nothing of changes to fake kernels
        yield
    torch.compiler.reset()


@pytest.fixture
def foreign_model(tmp_path):
    """A model of transformers with another vocabulary than bytes."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(1)
    config = transformers.LlamaConfig(vocab_size=300, hidden_size=32, intermediate_size=48, num_hidden_layers=1,
                                      num_attention_heads=2, num_key_value_heads=1, head_dim=16)
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "foreign")
    return tmp_path / "foreign"

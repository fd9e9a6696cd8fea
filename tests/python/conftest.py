"""Where the build is: LIGHTHOUSE_BUILD, or build/release."""

import os
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def build_folder():
    return Path(os.environ.get("LIGHTHOUSE_BUILD", ROOT / "build" / "release")).resolve()


@pytest.fixture(scope="session")
def export_fixture(build_folder):
    """The program of tests/cpp/model/export_fixture.cpp."""
    program = build_folder / "tests" / "cpp" / "model" / "export_fixture"
    if not program.exists():
        pytest.skip(f"{program} is not built")
    return program


@pytest.fixture(scope="session")
def lighthouse(build_folder):
    """The program, at LIGHTHOUSE_BIN or in the build."""
    program = Path(os.environ.get("LIGHTHOUSE_BIN", build_folder / "bin" / "lighthouse")).resolve()
    if not program.exists():
        pytest.skip(f"{program} is not built")
    return program

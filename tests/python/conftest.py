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

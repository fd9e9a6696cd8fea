"""The starting configurations of configs/: what stands in them, and in docs/training.md, is what `lighthouse plan` says."""

import re
import subprocess
import sys

import pytest

from conftest import ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import config_table  # noqa: E402


def test_each_is_known():
    found = {path.stem for path in (ROOT / "configs").iterdir()}
    assert found == {*config_table.DEVICES, "paper", "quick"}


def test_what_they_need_is_what_is_planned(lighthouse):
    result = subprocess.run([sys.executable, ROOT / "scripts" / "config_table.py", "--check", "--lighthouse", lighthouse],
                            capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("name", config_table.DEVICES)
def test_a_changed_number_is_noticed(lighthouse, name, tmp_path, monkeypatch):
    text = config_table.path_of(name).read_text()
    report = config_table.plan(lighthouse, name)
    assert report["fits"] and not report["is_close"]
    monkeypatch.setattr(config_table, "path_of", lambda _: tmp_path / "changed.toml")
    (tmp_path / "changed.toml").write_text(re.sub(r": [\d.]+ GiB", ": 1.0 GiB", text, count=1))
    assert (tmp_path / "changed.toml").read_text() != text == config_table.with_note(name, report)
    (tmp_path / "changed.toml").write_text(re.sub(r"\n# lighthouse plan.*?\n\n", "\n\n", text, flags=re.DOTALL))
    assert config_table.with_note(name, report) == text, "a configuration without its numbers gets them"

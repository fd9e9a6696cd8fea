"""What a release is made of: one version, a changelog, the licences of what is used, a citation, CI that calls make test."""

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
spec = importlib.util.spec_from_file_location("release_check", ROOT / "scripts" / "release_check.py")
check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(check)

CHANGELOG = "# Changelog\n\n## 0.2.0 (2026-11-26)\n\n* new\n\n## 0.1.0 (2026-01-01)\n\nold\n"
TODAY = "2026-11-26"


def text_of(*path):
    return ROOT.joinpath(*path).read_text()


def test_the_version_stands_in_one_place():
    """Elsewhere it follows; the changelog names it, results of experiments and tests hold versions of their time."""
    files = subprocess.run(["git", "grep", "-lF", check.version()], cwd=ROOT, capture_output=True, text=True).stdout.split()
    if not files:
        pytest.skip("not a git checkout")
    assert [file for file in files if not file.startswith(("experiments/", "tests/"))] == ["CHANGELOG.md", "CMakeLists.txt"]


def test_the_package_and_the_program_say_the_version(lighthouse):
    import lighthouse_attention
    assert lighthouse_attention.__version__ == check.version()
    output = subprocess.run([lighthouse, "--version"], capture_output=True, text=True, timeout=60).stdout
    assert output.split()[-1] == check.version()


def test_the_changelog_begins_with_this_version():
    version, date, text = check.newest_section(text_of("CHANGELOG.md"))
    assert version == check.version() and text
    assert re.fullmatch(r"unreleased|\d{4}-\d\d-\d\d", date)


def test_a_release_that_is_ready_has_no_problems():
    assert check.newest_section(CHANGELOG) == ("0.2.0", TODAY, "* new")
    assert list(check.changelog_problems(CHANGELOG, "0.2.0", TODAY)) == []
    assert list(check.checkout_problems("0.2.0", [], ["v0.1.0"])) == []


@pytest.mark.parametrize(("changelog", "version", "message"), [
    (CHANGELOG, "0.3.0", "begins with 0.2.0, CMakeLists.txt says 0.3.0"),
    (CHANGELOG.replace(TODAY, "unreleased"), "0.2.0", "is of 'unreleased'.*## 0.2.0 .2026-11-26."),
    (CHANGELOG.replace("* new\n", ""), "0.2.0", "says nothing of 0.2.0"),
])
def test_a_changelog_that_is_not_ready_is_named(changelog, version, message):
    [problem] = check.changelog_problems(changelog, version, TODAY)
    assert re.search(message, problem)


def test_a_checkout_that_is_not_ready_is_named():
    assert list(check.checkout_problems("0.2.0", [" M README.md"], ["v0.2.0"])) == [
        "files are not committed: README.md",
        "the tag v0.2.0 exists: raise the version in CMakeLists.txt, and begin its section of CHANGELOG.md"]
    with pytest.raises(ValueError, match="'## Unreleased' must be"):
        check.newest_section("# Changelog\n\n## Unreleased\n\n* new\n")


def test_licences_of_dependencies_are_listed():
    listed = {name for row in re.findall(r"^\| ([^|]+) \| [^|]+ \| [^|]+ \|$", text_of("docs", "dependencies.md"), re.MULTILINE)[1:]
              for name in row.split(", ")}
    named = re.findall(r"\"([a-z][\w-]*)[>=<][^\"]*\"", text_of("pyproject.toml"))
    for file in ROOT.glob("requirements*.txt"):
        named += re.findall(r"^([a-zA-Z][\w-]*)", file.read_text(), re.MULTILINE)
    named += re.findall(r":([\w-]+-dev)", text_of("scripts", "setup.sh"))
    assert {"torch", "pytest", "tomli", "accelerate", "libgtest-dev"} <= set(named)
    assert sorted(set(named) - listed) == [] and sorted(listed - set(named)) == ["CUDA Toolkit"]


def test_the_citation_is_that_of_the_readme():
    citation = yaml.safe_load(text_of("CITATION.cff"))
    [paper] = citation["references"]
    [bibtex] = re.findall(r"```bibtex\n(.*?)```", text_of("README.md"), re.DOTALL)
    fields = dict(re.findall(r"(\w+) += \{(.*)\}", bibtex))
    authors = " and ".join(f"{author['family-names']}, {author['given-names']}" for author in paper["authors"])
    assert (fields["title"], fields["author"], fields["year"]) == (paper["title"], authors, str(paper["year"]))
    assert fields["journal"] == paper["journal"] and paper["url"].split("/")[-1] in fields["journal"]
    assert citation["license"] == "Apache-2.0" and "Apache License" in text_of("LICENSE")
    assert "version" not in citation


def test_continuous_integration_calls_make_test_and_nothing_else():
    [job] = yaml.safe_load(text_of(".github", "workflows", "test.yml"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == ["sudo make test"]


def test_musl_is_named_before_anything_is_installed(tmp_path):
    ldd = tmp_path / "ldd"
    ldd.write_text("#!/bin/sh\necho 'musl libc (x86_64)' >&2\nexit 1\n")
    ldd.chmod(0o755)
    result = subprocess.run([ROOT / "scripts" / "setup.sh"], capture_output=True, text=True, timeout=60,
                            env=os.environ | {"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert (result.returncode, result.stderr) == (
        1, "setup: this system's C library is musl (as Alpine's), and torch needs glibc: take Debian, Ubuntu or RHEL\n")

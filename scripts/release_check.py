#!/usr/bin/env python3
"""What must hold of the checkout before a release is tagged; `make release-check` calls this, then tests and the wheel.
Prints one line for each thing that does not hold. Exit code 1 then."""

import datetime
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def version():
    """Of CMakeLists.txt, the only place."""
    [found] = re.findall(r"^project\(lighthouse VERSION (\d+\.\d+\.\d+) ", (ROOT / "CMakeLists.txt").read_text(), re.MULTILINE)
    return found


def newest_section(changelog):
    """(version, what stands in brackets behind it, text) of the first section of CHANGELOG.md."""
    heading, text = re.findall(r"^## (.*)\n((?:(?!## ).*\n?)*)", changelog, re.MULTILINE)[0]
    match = re.fullmatch(r"(\d+\.\d+\.\d+) \((.*)\)", heading)
    if not match:
        raise ValueError(f"CHANGELOG.md: '## {heading}' must be '## VERSION (DATE)' or '## VERSION (unreleased)'")
    return *match.groups(), text.strip()


def changelog_problems(changelog, version, today):
    named, date, text = newest_section(changelog)
    if named != version:
        yield f"CHANGELOG.md begins with {named}, CMakeLists.txt says {version}: they must be the same"
    if date != today:
        yield f"CHANGELOG.md: {named} is of '{date}'; a release has the day on which it is made: '## {version} ({today})'"
    if not text:
        yield f"CHANGELOG.md says nothing of {named}"


def git(*arguments):
    return subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")[:-1]


def checkout_problems(version, changed, tags):
    if changed:
        yield f"files are not committed: {', '.join(line[3:] for line in changed[:5])}"
    if f"v{version}" in tags:
        yield f"the tag v{version} exists: raise the version in CMakeLists.txt, and begin its section of CHANGELOG.md"


def main():
    changelog, today = (ROOT / "CHANGELOG.md").read_text(), datetime.date.today().isoformat()
    problems = [*changelog_problems(changelog, version(), today),
                *checkout_problems(version(), git("status", "--porcelain"), git("tag"))]
    for problem in problems:
        print(f"release-check: {problem}", file=sys.stderr)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())

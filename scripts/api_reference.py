#!/usr/bin/env python3
"""Writes docs/api.md from the docstrings of the Python package; --check only says whether it is up to date."""

import inspect
import sys
import textwrap
from pathlib import Path

import lighthouse_attention
from lighthouse_attention import functional, operators

TARGET = Path(__file__).resolve().parents[1] / "docs" / "api.md"
LISTS = ("Args:", "Attributes:", "Returns:", "Raises:")
NAMED = ("Args:", "Attributes:", "Raises:")  # what is said of each name


def prose(text):
    """A docstring as Markdown: what it says of arguments and errors becomes a list."""
    lines, section = [], None
    for line in inspect.cleandoc(text).splitlines():
        stripped = line.strip()
        if line in LISTS:
            section = line
            lines += [f"**{line[:-1]}**", ""]
        elif section in NAMED and line.startswith("    ") and line[4] != " ":
            name, _, meaning = stripped.partition(": ")
            lines.append(f"* `{name}`: {meaning}")
        else:
            lines.append("  " + stripped if section in NAMED and stripped else stripped)
    return "\n".join(lines).strip()


def signature(name, function):
    text = f"{name}{inspect.signature(function)}"
    return "\n".join(textwrap.wrap(text, 110, subsequent_indent="    "))


def entry(name, item):
    function = item.__init__ if inspect.isclass(item) else item
    text = signature(name, function).replace("(self, ", "(", 1)
    parts = [f"## {name}", "", "```", text, "```", "", prose(item.__doc__)]
    if inspect.isclass(item):
        own = {name: value for name, value in vars(item).items() if inspect.isfunction(value) and value.__doc__}
        for name, method in own.items():
            parts += ["", f"`{signature(name, method).replace('(self, ', '(', 1)}`", "", prose(method.__doc__)]
    return "\n".join(parts)


def page():
    names = ["lighthouse_attention", "token_scores", "select", "gathered_length", "LighthouseAttention", "switch_to_dense",
             "TokenShards"]
    assert sorted(names) == sorted(lighthouse_attention.__all__)
    parts = ["# Python API", "", "Made from the docstrings by `scripts/api_reference.py`. How to begin: [python.md](python.md). "
             "What is computed: [algorithm.md](algorithm.md).", "", prose(functional.__doc__), ""]
    parts += [entry(name, getattr(lighthouse_attention, name)) + "\n" for name in names]
    description, _, rest = inspect.cleandoc(operators.__doc__).partition("\n\n    ")
    listing, _, rest = rest.partition("\n\n")
    parts += ["## Operators", "", prose(description), "", "```", textwrap.dedent("    " + listing), "```", "", rest, ""]
    return "\n".join(parts)


def main():
    text = page()
    if "--check" in sys.argv:
        if TARGET.exists() and TARGET.read_text() == text:
            return 0
        print(f"{TARGET} is not what the docstrings say: run python scripts/api_reference.py")
        return 1
    TARGET.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())

#!/usr/bin/env python3
"""What docs/design.md counts of the tree: functions of more than 100 lines, six lines that stand twice to the letter outside
tests and examples, comparisons with words in quotes, and files that name an operator.

    python scripts/measure_code.py            # prints each; exit code 1 where there is a long function or a duplicate
"""

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ("*.cpp", "*.cu", "*.h", "*.cuh", "*.py")
LONGEST, REPEATED = 100, 6
NO_FUNCTION = re.compile(r"\s*(namespace|extern|class|struct|enum|union)\b|\s*(inline )?constexpr .*=|.* = ?\{$")
COMPARISON = re.compile(r'[!=]= "')


def files(*folders, patterns=SOURCES):
    """{name: lines}, of the files that git knows."""
    names = subprocess.run(["git", "ls-files", "--", *folders], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return {name: (ROOT / name).read_text().split("\n") for name in names if any(Path(name).match(p) for p in patterns)}


def functions(name, lines):
    """(first line, number of lines) of each: of C++ as clang-format leaves it, a line in braces at its own depth."""
    if name.endswith(".py"):
        for node in ast.walk(ast.parse("\n".join(lines))):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
                yield node.lineno, node.end_lineno - node.lineno + 1
        return
    opened = {}
    for number, line in enumerate(lines, 1):
        depth = len(line) - len(line.lstrip())
        if line.endswith("{") and ("(" in line or line.lstrip().startswith(("}", ":")) or depth > 0) and not NO_FUNCTION.match(line):
            opened.setdefault(depth, number)
        elif line.lstrip().startswith("}"):
            inner = [opened.pop(other) for other in sorted(opened) if other >= depth]
            if inner:
                yield inner[0], number - inner[0] + 1


def long_functions(tree):
    return [f"{name}:{first}: {length} lines" for name, lines in tree.items() for first, length in functions(name, lines)
            if length > LONGEST]


def duplicates(tree):
    """Each stretch once, wherever it stands, by its first line."""
    places = defaultdict(list)
    for name, lines in tree.items():
        kept = [(number, line.strip()) for number, line in enumerate(lines, 1)
                if line.strip() and not line.startswith(("#include", "import ", "from ")) and not line.endswith(" override;")]
        for at in range(len(kept) - REPEATED + 1):
            places[tuple(line for _, line in kept[at:at + REPEATED])].append((name, kept[at][0]))
    return [" = ".join(f"{name}:{number}" for name, number in found) for found in places.values() if len(found) > 1]


def main():
    everything = files(".")
    shipped = {name: lines for name, lines in everything.items() if not name.startswith(("tests/", "examples/"))}
    found = {"functions over 100 lines": long_functions(everything), "six lines twice": duplicates(shipped)}
    for what, places in found.items():
        print(f"{what}: {len(places)}", *places, sep="\n  ")
    cpp = {name: lines for name, lines in shipped.items() if name.startswith(("src/", "include/", "bench/")) and not name.endswith(".py")}
    print("comparisons with a word in quotes, C++:", sum(len(COMPARISON.findall(line)) for lines in cpp.values() for line in lines))
    named = {name: "\n".join(lines).count("gather_rows") for name, lines in files("include", "src", "python").items()}
    print("files that name gather_rows:", sum(count > 0 for count in named.values()), "mentions:", sum(named.values()))
    calls = files("src/calls", "src/ops", "src/stable", "python/lighthouse_attention/operators.py")
    print("lines of src/calls, src/ops, src/stable, operators.py:", sum(len(lines) - 1 for lines in calls.values()))
    sys.exit(1 if any(found.values()) else 0)


if __name__ == "__main__":
    main()

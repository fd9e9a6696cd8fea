"""The command: lighthouse-init ARGUMENTS is `lighthouse init ARGUMENTS`, in the place of this process.

What it writes follows from the formulas of `lighthouse plan` and the keys of `lighthouse train`, which are in the program; so
there is nothing here but the way to it.
"""

import os
import shutil
import sys

VARIABLE = "LIGHTHOUSE_BIN"


def find_program():
    """`LIGHTHOUSE_BIN`, a path or a command, where that is set; else `lighthouse` on PATH; None where there is none."""
    return shutil.which(os.environ.get(VARIABLE) or "lighthouse")


def main():
    program = find_program()
    if program is None:
        missing = f"{VARIABLE}={os.environ[VARIABLE]}: is no program" if os.environ.get(VARIABLE) else \
            "the program lighthouse is not on PATH"
        print(f"lighthouse-init: {missing}; the package does not hold it: `make build` in the repository makes "
              f"build/release/bin/lighthouse, whose path goes into {VARIABLE}, or its folder on PATH", file=sys.stderr)
        return 2
    sys.stdout.flush()
    os.execv(program, [program, "init", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())

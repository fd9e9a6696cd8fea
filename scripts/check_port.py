#!/usr/bin/env python3
"""Checks another implementation of Lighthouse attention against the golden data: docs/porting.md.

    python scripts/check_port.py MODULE:FUNCTION [--golden FOLDER] [--case a]

FUNCTION(q, k, v, *, num_levels, pooling_factor, topk, tile_topk, scorer, dilation, cover_prefix) is given numpy arrays
float32 [B, N, H, d] and returns a dict with any of
    selection  integers [B, H, S]: the entry of each row in gathered order, (l, i) as offset(l) + i
    o          [B, N, H, d]: the output
    dq, dk, dv [B, N, H, d]: gradients, for the gradient of o that is passed as grad_out=
What is returned is checked; the exit code is 0 when all of it is right. Only numpy is needed.
"""

import argparse
import importlib
import json
import sys
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).resolve().parents[1] / "tests" / "golden"
# Largest errors of a plain fp32 implementation over all cases: absolute, and relative in 2-norm over the whole tensor.
BOUNDS = {"o": (1.45e-6, 4.55e-7), "dq": (2.85e-6, 9.25e-7), "dk": (2.55e-6, 9.55e-7), "dv": (5.75e-6, 5.85e-7)}


def load(path):
    """(metadata, {name: array}) of a safetensors file."""
    data = path.read_bytes()
    size = int.from_bytes(data[:8], "little")
    header = json.loads(data[8:8 + size])
    metadata = header.pop("__metadata__")
    types = {"F32": np.float32, "I32": np.int32}
    body = data[8 + size:]
    return metadata, {name: np.frombuffer(body[slice(*entry["data_offsets"])], types[entry["dtype"]]).reshape(entry["shape"])
                      for name, entry in header.items()}


def selection_error(ours, theirs):
    if ours.shape != theirs.shape:
        return f"has shape {list(ours.shape)}, not {list(theirs.shape)}"
    wrong = np.argwhere(ours != theirs)
    if len(wrong) == 0:
        return None
    first = tuple(wrong[0])
    return f"differs in {len(wrong)} of {theirs.size} rows, first at (batch, head, row) {tuple(map(int, first))}: " \
           f"{int(ours[first])}, not {int(theirs[first])}"


def float_error(ours, theirs, bounds):
    if ours.shape != theirs.shape:
        return f"has shape {list(ours.shape)}, not {list(theirs.shape)}"
    difference = ours.astype(np.float64) - theirs
    absolute, relative = np.abs(difference).max(), np.linalg.norm(difference) / np.linalg.norm(theirs.astype(np.float64))
    if absolute <= bounds[0] and relative <= bounds[1]:
        return None
    worst = tuple(map(int, np.unravel_index(np.abs(difference).argmax(), difference.shape)))
    return f"errs by {absolute:.2e} (bound {bounds[0]:.2e}), first seen at (batch, token, head, channel) {worst}, relatively by " \
           f"{relative:.2e} (bound {bounds[1]:.2e})"


def expected_of(data, scorer):
    expected = {"selection": data[f"{scorer}.idx"], "o": data[f"{scorer}.o"].swapaxes(1, 2)}
    if scorer == "norm":  # gradients are stored for it alone
        expected |= {name: data[f"norm.{name}"] for name in ("dq", "dk", "dv")}
    return expected


def check(function, path):
    """Prints a line for each result; returns how many are wrong, and how many were looked at."""
    metadata, data = load(path)
    wrong = checked = 0
    for scorer in metadata["scorer"].split(","):
        results = function(data["q"], data["k"], data["v"], grad_out=data["grad_out"].swapaxes(1, 2),
                           num_levels=int(metadata["L"]), pooling_factor=int(metadata["p"]), topk=int(metadata["k"]),
                           tile_topk=int(metadata["m"]), scorer=scorer, dilation=int(metadata["dilation"]), cover_prefix=False)
        for name, theirs in expected_of(data, scorer).items():
            if results.get(name) is None:
                continue
            ours = np.asarray(results[name])
            error = selection_error(ours, theirs) if name == "selection" else float_error(ours, theirs, BOUNDS[name])
            print(f"{path.stem} {scorer:<8} {name:<9} {'right' if error is None else error}")
            checked, wrong = checked + 1, wrong + (error is not None)
    return wrong, checked


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("function", metavar="MODULE:FUNCTION")
    parser.add_argument("--golden", type=Path, default=GOLDEN, help="folder of the golden data (tests/golden)")
    parser.add_argument("--case", action="append", help="one case by name; may be given again; default: all that are there")
    options = parser.parse_args()
    module, _, name = options.function.partition(":")
    if not name:
        parser.error(f"'{options.function}' has no function; write MODULE:FUNCTION")
    sys.path.insert(0, "")
    function = getattr(importlib.import_module(module), name)
    paths = [path for path in sorted(options.golden.glob("*.safetensors")) if not options.case or path.stem in options.case]
    if not paths:
        parser.error(f"no such golden case in {options.golden}")
    results = [check(function, path) for path in paths]
    wrong, checked = (sum(column) for column in zip(*results))
    print(f"{checked - wrong} of {checked} results are right")
    return 0 if checked and not wrong else 1


if __name__ == "__main__":
    sys.exit(main())

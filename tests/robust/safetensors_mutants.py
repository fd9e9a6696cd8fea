#!/usr/bin/env python3
"""Compares what our reader of safetensors accepts with what the format's own library does, on files that were changed.

    python tests/robust/safetensors_mutants.py --count 10000 --build build/release

Every disagreement must be one of DELIBERATE; another one is printed, and the program fails.
"""

import argparse
import json
import random
import re
import struct
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

import safetensors

# What we refuse and the library reads, by our words.
DELIBERATE = {
    "stands twice": "two tensors, or two members of anything, of one name: the library keeps the last",
    "unknown dtype": "dtypes that torch tensors of this program do not have: F8, U16, U32, U64, complex",
    "is not an object": "metadata of null",
    "its shape overflows": "tensors without elements whose strides have more than 64 bits",
}
PIECES = ["0", "1", "-1", "1.0", "1e0", "null", "{}", "[]", '"a"', '"F32"', '"U16"', '"F8_E4M3"', ",", ":", " ", "\n", "\\u0061",
          "18446744073709551616", "9223372036854775808", '"__metadata__":{"a":"b"},', '"x":1,', "\0", "\x7f", "\u00e9"]

DTYPES = [f'"{name}"' for name in ("F32", "F64", "F16", "BF16", "I32", "I16", "I8", "U8", "BOOL", "U16", "U32", "U64", "F8_E4M3",
                                   "F8_E5M2", "C64", "f32", "X")]


def file_of(header, data):
    return struct.pack("<Q", len(header)) + header + data


def seeds():
    tensors = {"a": ("F32", [2, 1], 0, 8), "b": ("BF16", [], 8, 10), "c": ("U8", [0, 3], 10, 10), "d": ("I64", [1], 10, 18)}
    entries = {name: dict(dtype=dtype, shape=shape, data_offsets=[begin, end]) for name, (dtype, shape, begin, end) in tensors.items()}
    for metadata in ({}, {"__metadata__": {"format": "pt", "b": ""}}):
        for indent in (None, 1):
            yield json.dumps(metadata | entries, indent=indent).encode(), bytes(range(18))
    yield b"{}", b""


def other_json(source, text):
    """Another dtype, another value, or a member twice."""
    kind = source.randrange(4)
    if kind == 0:
        return re.sub(r'"(F32|BF16|U8|I64)"', lambda found: source.choice([found[0], *DTYPES]), text)
    members = list(re.finditer(r'"\w+": *("\w*"|\[[^\[\]]*\]|\d+|\{[^{}]*\})', text))
    if not members:
        return text
    one, two = source.choice(members), source.choice(members)
    if kind == 1:
        return text[: one.start()] + two[0] + ", " + text[one.start() :]
    if kind == 2:
        return text[: one.start(1)] + source.choice([two[1], *PIECES[:10]]) + text[one.end(1) :]
    return text[: one.start()] + f'"{source.choice("xyz")}": {source.choice(PIECES[:10])}, ' + text[one.start() :]


def mutant(source, known):
    """Most changes are of the header, whose length is then right."""
    header, data = source.choice(known)
    header = bytearray(header)
    if source.random() < 0.5:  # still JSON
        header = bytearray(other_json(source, header.decode()).encode())
    for _ in range(source.choice([0, 1, 1, 3])):
        place = source.randrange(len(header) + 1)
        numbers = list(re.finditer(rb"\d+", header))
        kind = source.randrange(6)
        if kind == 0 and header:
            header[place % len(header)] ^= 1 << source.randrange(8)
        elif kind == 1:
            header[place:place] = source.choice(PIECES).encode()
        elif kind == 2:
            del header[place : place + source.randint(1, 8)]
        elif kind == 3 and numbers:
            number = source.choice(numbers)
            header[number.start() : number.end()] = source.choice(PIECES[:5] + ["2", "8", "10", "18", "007", "-0"]).encode()
        elif kind == 4:
            begin = source.randrange(len(header) + 1)
            header[place:place] = header[begin : begin + source.randint(1, 60)]
        elif kind == 5:
            data = data[: source.randrange(len(data) + 1)] + bytes(source.randrange(3))
    whole = file_of(bytes(header), data)
    if source.random() < 0.1:  # of the length too
        whole = struct.pack("<Q", source.choice([0, 1, len(header) - 1, len(header) + 1, 2**63, 2**64 - 1]) % 2**64) + whole[8:]
    return whole


def library_accepts(data):
    try:
        safetensors.deserialize(data)
        return True, ""
    except Exception as error:  # its own type, and Python's for texts
        return False, str(error)


def kind_of(data, ours):
    """By our words, but for the first of two of one name, which may be wrong in other ways."""
    def once(members):
        assert len(dict(members)) == len(members)

    try:
        json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]], object_pairs_hook=once)
    except AssertionError:
        return "stands twice"
    return next((words for words in DELIBERATE if words in ours), None)


def compare(build, count, seed=1):
    source, known = random.Random(seed), list(seeds())
    mutants = [mutant(source, known) for _ in range(count)]
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"".join(struct.pack("<Q", len(data)) + data for data in mutants))
        file.flush()
        program = build / "tests" / "robust" / "read_safetensors"
        output = subprocess.run([program, file.name], capture_output=True, check=True).stdout
    answers = output.decode(errors="replace").splitlines()
    assert len(answers) == count, "an answer for every file"
    kinds, other = Counter(), []
    for data, ours in zip(mutants, answers):
        accepts, theirs = library_accepts(data)
        if accepts == (ours == "accepted"):
            kinds["accepted by both" if accepts else "refused by both"] += 1
            continue
        kind = kind_of(data, ours) if accepts else None
        kinds[kind] += 1
        if kind is None:
            other.append((data, ours, theirs))
    return kinds, other


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--build", type=Path, default=Path("build/release"))
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    kinds, other = compare(arguments.build.resolve(), arguments.count, arguments.seed)
    for kind, number in kinds.most_common():
        print(f"{number:7} {kind}")
    for data, ours, theirs in other[:20]:
        print(f"{data!r}\n  ours:   {ours}\n  theirs: {theirs or 'accepted'}")
    sys.exit(1 if other else 0)


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""What far context is worth in a text, without training: bits a byte of held-out rows under a compressor that sees less of it.

  far_context.py TRAIN HELDOUT [--seq-len 65536] [--windows 1024,4096,8192,16384] [--rows 24]    (needs pyppmd)

PPMd (variant H) first reads training text, as a model has read it; then, for every block of a row anew, the last bytes before
the block, at most the window; then the block, whose bits are counted. Rows are cut from the files in path order, as the
trainer cuts them, and spread evenly over the held-out text. Prints a table line for each window.
"""

import argparse
import os
import statistics
from pathlib import Path

import pyppmd
from corpus_build import list_files

BLOCK_BYTES = 2048
ORDER, MEMORY = 16, 1 << 30


def read_stream(folder):
    return b"".join((folder / path).read_bytes() for path in list_files(folder))


def spread(data, length, count):
    """`count` pieces of `length` bytes, evenly over data."""
    total = len(data) // length
    count = min(count, total)
    return [data[at * length : (at + 1) * length] for at in (index * total // count for index in range(count))]


def encoded_bytes(encoder, *texts):
    """Bytes of the last text after the others; the encoder is used up. Range coding is off by less than four bytes."""
    sizes = [len(encoder.encode(text)) for text in texts]
    return sizes[-1] + len(encoder.flush())


def in_child(measure):
    """The number that `measure` gives in a forked process: the model as it is now is copied, not built again."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        os.write(writing, str(measure()).encode())
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as answer:
        found = answer.read()
    os.waitpid(child, 0)
    return int(found)


def bits_per_byte(encoder, row, window):
    """Of each block of the row, [seq_len / BLOCK_BYTES]."""
    bits = []
    for begin in range(0, len(row), BLOCK_BYTES):
        context, block = row[max(0, begin - window) : begin], row[begin : begin + BLOCK_BYTES]
        bits.append(8 * in_child(lambda: encoded_bytes(encoder, context, block)) / len(block))
    return bits


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("train", type=Path)
    parser.add_argument("heldout", type=Path)
    parser.add_argument("--seq-len", type=int, default=65536)
    parser.add_argument("--windows", type=lambda text: [int(word) for word in text.split(",")], default=[1024, 4096, 8192, 16384])
    parser.add_argument("--rows", type=int, default=24)
    parser.add_argument("--prime-mb", type=int, default=8)
    arguments = parser.parse_args()
    encoder = pyppmd.Ppmd7Encoder(ORDER, MEMORY)
    for piece in spread(read_stream(arguments.train), 1 << 16, arguments.prime_mb << 4):
        encoder.encode(piece)
    rows = spread(read_stream(arguments.heldout), arguments.seq_len, arguments.rows)
    full = [bits_per_byte(encoder, row, arguments.seq_len) for row in rows]
    mean = statistics.fmean(bit for row in full for bit in row)
    second = len(full[0]) // 2
    late = statistics.fmean(bit for row in full for bit in row[second:])
    print(f"{len(rows)} rows of {arguments.seq_len}: {mean:.3f} bits a byte, {late:.3f} in the second half")
    for window in arguments.windows:
        found = [bits_per_byte(encoder, row, window) for row in rows]
        cost = statistics.fmean(bit for row in found for bit in row) / mean - 1
        late_cost = statistics.fmean(bit for row in found for bit in row[second:]) / late - 1
        print(f"window {window:6}: {cost:+.1%} bits, {late_cost:+.1%} in the second half", flush=True)


if __name__ == "__main__":
    main()

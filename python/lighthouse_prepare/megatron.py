"""The index of a Megatron-LM data set; src/data/token_source.h says what is in it. A document is one sequence."""

import struct

import numpy as np

CODES = {np.dtype("<u2"): 8, np.dtype("<i4"): 4}
AT_ONCE = 1 << 20  # documents


def write_index(path, lengths, dtype):
    """`lengths`: [documents] int32, tokens; may be a mapped file."""
    with open(path, "wb") as file:
        file.write(b"MMIDIDX\0\0" + struct.pack("<QBQQ", 1, CODES[dtype], len(lengths), len(lengths) + 1))
        for part in parts(lengths):
            file.write(part.astype("<i4").tobytes())
        begin = 0
        for part in parts(lengths):
            ends = begin + np.cumsum(part, dtype=np.int64) * dtype.itemsize
            file.write(np.concatenate([[begin], ends[:-1]]).astype("<i8").tobytes())
            begin = ends[-1]
        for first in range(0, len(lengths) + 1, AT_ONCE):
            file.write(np.arange(first, min(first + AT_ONCE, len(lengths) + 1), dtype="<i8").tobytes())


def parts(lengths):
    return (np.asarray(lengths[first:first + AT_ONCE]) for first in range(0, len(lengths), AT_ONCE))

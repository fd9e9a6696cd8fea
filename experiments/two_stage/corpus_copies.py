"""Near-copies: how much of a held-out file stands in the training text, counted in 64-byte shingles at every byte."""

import numpy

SHINGLE_BYTES = 64
_FILTER_BITS = 30  # a filter of 2^30 bits: 128 MiB, few false hits up to 100 MB of held-out text
_CHUNK = 1 << 18  # bytes hashed at a time, so that the intermediate arrays stay in the cache
_MULTIPLIERS = (0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9, 0xD6E8FEB86659FD93, 0xA0761D6478BD642F,
                0xE7037ED1A0B428DB)


def shingles(data):
    """64-bit hashes of all windows of SHINGLE_BYTES bytes, [len(data) - 63] uint64, empty for shorter data."""
    data = numpy.frombuffer(data, dtype=numpy.uint8)
    last = len(data) - SHINGLE_BYTES + 1
    parts = [_hash_windows(data[begin : min(begin + _CHUNK, last) + SHINGLE_BYTES - 1]) for begin in range(0, last, _CHUNK)]
    return numpy.concatenate(parts) if parts else numpy.empty(0, numpy.uint64)


def _hash_windows(data):
    """Doubles the window six times: the hash of 2n bytes mixes the hashes of its halves."""
    hashes = data.astype(numpy.uint64) + numpy.uint64(1)
    for level, multiplier in enumerate(_MULTIPLIERS):
        half = 1 << level
        left = hashes[:-half] * numpy.uint64(multiplier)
        left ^= left >> numpy.uint64(29)
        hashes = left + hashes[half:]
    hashes *= numpy.uint64(_MULTIPLIERS[0])
    return hashes ^ (hashes >> numpy.uint64(32))


class HeldOutShingles:
    """The shingles of held-out texts and which of them training text has shown so far."""

    def __init__(self, texts):
        self._known = numpy.unique(numpy.concatenate([shingles(text) for text in texts] or [numpy.empty(0, numpy.uint64)]))
        self._seen = numpy.zeros(len(self._known), dtype=bool)
        self._filter = numpy.zeros(1 << (_FILTER_BITS - 3), dtype=numpy.uint8)
        byte, bit = self._place(self._known)
        numpy.bitwise_or.at(self._filter, byte, bit)

    def show(self, text):
        """Marks the shingles that occur in a training text."""
        hashes = shingles(text)
        byte, bit = self._place(hashes)
        hashes = hashes[(self._filter[byte] & bit) != 0]
        rank = numpy.searchsorted(self._known, hashes)
        rank[rank == len(self._known)] = 0
        self._seen[rank[self._known[rank] == hashes]] = True

    def count_seen(self, text):
        """(shingles of a held-out text that training text has, all its shingles), a repeated one counted as often."""
        hashes = shingles(text)
        return int(self._seen[numpy.searchsorted(self._known, hashes)].sum()), len(hashes)

    @staticmethod
    def _place(hashes):
        position = hashes >> numpy.uint64(64 - _FILTER_BITS)
        return position >> numpy.uint64(3), numpy.uint8(1) << (position & numpy.uint64(7)).astype(numpy.uint8)

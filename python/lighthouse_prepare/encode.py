"""Chunks of text as tokens: what a worker does."""

import hashlib
from dataclasses import dataclass

import numpy as np

from .documents import texts_of
from .errors import PrepareError

SPLITS = ("train", "validation")


@dataclass(frozen=True)
class Encoded:
    """Of chunks read after one another."""
    tokens: dict    # split -> bytes of its documents, in the order of the text
    lengths: dict   # split -> int32 [documents], each with its begin and end
    text_bytes: int
    empty: int      # documents without a character or without a token, which are left out
    lost: list      # of documents with characters that have no token: these
    problems: list  # what is wrong with each document that is left out for it
    after: tuple    # (file, record): where reading goes on
    disk: int       # bytes of files read so far


class Encoder:
    """Makes Encoded of lists of chunks."""

    def __init__(self, tokenizer, reading, validation):
        self.encode = tokenizer.encoder()
        self.dtype = tokenizer.dtype
        self.begin = [tokenizer.begin[0]] if tokenizer.begin else []
        self.end = [tokenizer.end[0]]
        self.reading = reading
        self.threshold = validation_threshold(validation)

    def __call__(self, chunks):
        texts, problems = [], []
        for chunk in chunks:
            more, wrong = texts_of(chunk, self.reading)
            texts += more
            problems += wrong
        documents = [text for text in texts if text]
        splits = {split: [] for split in SPLITS}
        text_bytes, empty = 0, len(texts) - len(documents)
        encoded, lost = self.encode_all(documents, chunks)
        for text, tokens in zip(documents, encoded):
            if len(tokens) == 0:
                empty += 1
                continue
            data = text.encode()
            text_bytes += len(data)
            splits["validation" if text_hash(data) < self.threshold else "train"].append(self.finish(tokens))
        return Encoded({split: b"".join(array.tobytes() for array in arrays) for split, arrays in splits.items()},
                       {split: np.array([len(array) for array in arrays], dtype="<i4") for split, arrays in splits.items()},
                       text_bytes, empty, [*filter(None, lost)], problems, chunks[-1].after, chunks[-1].disk)

    def encode_all(self, documents, chunks):
        try:
            return self.encode(documents)
        except BaseException as error:  # a panic of the library is no Exception, and does not travel between processes
            if isinstance(error, (KeyboardInterrupt, SystemExit)):
                raise
            raise PrepareError(f"{chunks[0].name}: the tokenizer fails on a document from record {chunks[0].first + 1} on: "
                               f"{type(error).__name__}: {error}") from None

    def finish(self, tokens):
        return np.concatenate([self.begin, tokens, self.end]).astype(self.dtype)


def text_hash(data):
    """A whole number below 2^64 that depends on the text alone: copies of a document go to the same split."""
    return int.from_bytes(hashlib.blake2b(data, digest_size=8).digest(), "big")


def validation_threshold(share):
    return int(share * 2**64)

"""Text, tokenizers and files for the tests of lighthouse-prepare, and a reader of what it writes."""

import gzip
import json
import struct
import subprocess
import sys

import numpy as np
import pytest

zstandard = pytest.importorskip("zstandard")
tokenizers = pytest.importorskip("tokenizers")
arrow = pytest.importorskip("pyarrow")
parquet = pytest.importorskip("pyarrow.parquet")

END = "<|endoftext|>"
WORDS = "the light house stands at sea, far from land; ships see it. ŝipoj vidas ĝin — 灯台 🚢 {x: 1}\n".split(" ")


def texts(count, seed, mean=60):
    """Documents of `mean` words on average, each other than the others."""
    random = np.random.default_rng(seed)
    lengths = random.geometric(1 / mean, size=count)
    return [f"{seed}.{number} " + " ".join(random.choice(WORDS, size=1 + length)) for number, length in enumerate(lengths)]


def byte_level_bpe(special=(END,), vocab_size=400):
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(special), show_progress=False,
                                             initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet())
    tokenizer.train_from_iterator(texts(100, seed=0), trainer)
    return tokenizer


def json_lines(documents, key="text"):
    return "".join(json.dumps({"id": number, key: text}, ensure_ascii=number % 2 == 0) + "\n"
                   for number, text in enumerate(documents)).encode()


def write(path, content, compression=""):
    pack = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}[compression]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(content.encode() if isinstance(content, str) else content))
    return path


def write_table(path, documents, key="text", **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(arrow.table({"id": list(range(len(documents))), key: documents}), path, **options)
    return path


def write_mixed(folder):
    """A folder with every kind of file; returns its documents in the order in which they are to be read."""
    parts = {name: texts(40, seed) for seed, name in enumerate(("a", "b", "c", "d"), 1)}
    write(folder / "a.jsonl.zst", json_lines(parts["a"]), ".zst")
    write(folder / "b" / "b.jsonl.gz", json_lines(parts["b"]), ".gz")
    write(folder / "c.JSONL", json_lines(parts["c"])[:-1])  # sorts first; its last line has no end
    write_table(folder / "d.parquet", parts["d"], row_group_size=7)
    single = texts(3, seed=9, mean=2000)
    for name, text in zip(("e.md", "f.txt", "g.txt.zst"), single):
        write(folder / name, text, ".zst" if name.endswith(".zst") else "")
    write(folder / ".hidden.txt", "no document")
    write(folder / "picture.png", b"\x89PNG")
    order = sorted((folder / name).as_posix().encode() for name in ("a.jsonl.zst", "b/b.jsonl.gz", "c.JSONL", "d.parquet"))
    return [text for path in order for text in parts[chr(path.rsplit(b"/", 1)[1][0]).lower()]] + single


def read_documents(prefix):
    """[array of tokens] of PREFIX.bin and PREFIX.idx, by the format's definition and not by what wrote them."""
    index = prefix.with_suffix(".idx").read_bytes()
    magic, version, code, sequences, offsets = struct.unpack_from("<9sQBQQ", index)
    assert (magic, version, offsets) == (b"MMIDIDX\0\0", 1, sequences + 1)
    sizes = np.frombuffer(index, "<i4", sequences, 34)
    pointers = np.frombuffer(index, "<i8", sequences, 34 + 4 * sequences)
    assert np.array_equal(np.frombuffer(index, "<i8", -1, 34 + 12 * sequences), np.arange(sequences + 1))
    dtype = np.dtype({8: "<u2", 4: "<i4"}[code])
    tokens = np.frombuffer(prefix.with_suffix(".bin").read_bytes(), dtype)
    assert np.array_equal(pointers, np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])[:-1] * dtype.itemsize)
    assert len(tokens) == sizes.sum()
    return np.split(tokens, np.cumsum(sizes)[:-1])


def folder_bytes(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


# Small pieces, so that a small corpus is many of them.
SMALL_PIECES = ("import sys, lighthouse_prepare.reader as reader, lighthouse_prepare.streams as streams; "
                "reader.CHUNK = streams.BLOCK = 4000; from lighthouse_prepare.__main__ import main; sys.exit(main())")


def command(*arguments, small_pieces=False):
    program = ["-c", SMALL_PIECES] if small_pieces else ["-m", "lighthouse_prepare"]
    return [sys.executable, *program, *map(str, arguments)]


def run(*arguments, **options):
    return subprocess.run(command(*arguments), capture_output=True, text=True, timeout=120, **options)

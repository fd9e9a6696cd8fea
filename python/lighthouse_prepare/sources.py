"""Which files are read, in which order, and as what."""

import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .errors import UsageError, check_there

KINDS = {".txt": "text", ".md": "text", ".jsonl": "lines", ".ndjson": "lines", ".parquet": "table"}
COMPRESSIONS = (".gz", ".zst")
READ_OTHERWISE = {*COMPRESSIONS, *(ending for ending, kind in KINDS.items() if kind != "text")}  # than as text


@dataclass(frozen=True)
class Source:
    path: Path
    name: str          # in messages, and in the manifest: the argument and the place below it
    kind: str          # text: the file is a document; lines: a JSON object in each line; table: parquet
    compression: str   # "", ".gz" or ".zst"
    bytes: int
    modified_ns: int

    @property
    def identity(self):
        """By which a later start knows it again."""
        return [self.name, self.bytes, self.modified_ns]


def list_sources(arguments, text_endings=()):
    """([Source] in the order of the arguments and, in a folder, of the bytes of the paths, Counter of endings that are left
    out). Of a folder, files and folders whose names begin with a dot are left out, and links to folders."""
    check_apart(arguments)
    sources, left_out = [], Counter()
    for argument in arguments:
        path = Path(argument)
        if os.path.isdir(path):
            for file in sorted(walk(path), key=os.fsencode):
                kind, compression = kind_of(file, text_endings)
                if kind:
                    sources.append(make_source(Path(file), file, kind, compression))
                else:
                    left_out[os.path.splitext(file)[1].lower() or "no ending"] += 1
        else:
            sources.append(make_source(path, str(argument), *named_kind(path, text_endings)))
    if not sources:
        found = f"; there is {endings_text(left_out)}" if left_out else ""
        raise UsageError(f"{', '.join(map(str, arguments))}: no file to read: none ends in {', '.join(KINDS)}, alone or with "
                         f"{' or '.join(COMPRESSIONS)}{found}; --text-endings names more endings of text")
    return sources, left_out


def endings_text(left_out):
    return ", ".join(f"{count} {ending}" for ending, count in left_out.most_common(5)) + (", …" if len(left_out) > 5 else "")


def kind_of(path, text_endings):
    """(kind, compression); kind is None for what is not read."""
    stem, compression = str(path).lower(), ""
    if stem.endswith(COMPRESSIONS):
        stem, compression = os.path.splitext(stem)
    kind = "text" if stem.endswith(tuple(text_endings)) else KINDS.get(os.path.splitext(stem)[1])
    return (None, "") if kind == "table" and compression else (kind, compression)


def named_kind(path, text_endings):
    """Of a file that an argument names: it must be one that is read."""
    check_there(path)
    kind, compression = kind_of(path, text_endings)
    if not kind:
        raise UsageError(f"{path}: is not read by its name: give {', '.join(KINDS)}, all but parquet also with "
                         f"{' or '.join(COMPRESSIONS)}; --text-endings names more endings of text")
    return kind, compression


def make_source(path, name, kind, compression):
    try:
        status = path.stat()
    except OSError as error:
        raise UsageError(f"{name}: cannot be read: {error.strerror}") from error
    if not stat.S_ISREG(status.st_mode):
        raise UsageError(f"{name}: is neither a file nor a folder")
    return Source(path, name, kind, compression, status.st_size, status.st_mtime_ns)


def walk(folder):
    def fail(error):
        raise UsageError(f"{error.filename}: cannot be listed: {error.strerror}") from error

    for parent, folders, files in os.walk(folder, onerror=fail):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            path = os.path.join(parent, name)
            if not name.startswith(".") and os.path.isfile(path):  # no dangling link, socket or pipe
                yield path


def check_apart(arguments):
    """No document is read twice because one argument holds another."""
    for index, first in enumerate(arguments):
        for second in arguments[index + 1:]:
            if inside(first, second) or inside(second, first):
                raise UsageError(f"{first} and {second}: one holds the other, so that documents would be read twice; give one")


def inside(path, folder):
    """Whether `path` is `folder` or lies in it."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))

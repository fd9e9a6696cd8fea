"""The folder that is left: data sets, indices, tokenizer and manifest; complete or not there."""

import hashlib
import json
import os
import shutil
from pathlib import Path

import numpy as np

from .encode import SPLITS
from .errors import PrepareError, UsageError, cut, writing
from .megatron import write_index
from .sources import inside
from .statistics import length_statistics, report_lines
from .workplace import KNOWN, MANIFEST, TOKENIZER, is_workplace, strange_name, sync_folder, write_durably

FORMAT = "lighthouse-prepare 1"


def resolve_output(output):
    """The folder to write: where a link leads, so that the link stays and leads to the data."""
    target = output
    if os.path.islink(output):
        target = Path(os.path.realpath(output))
        if os.path.islink(target):
            raise UsageError(f"--output {output}: is a link that leads in a circle; choose another name")
        if not target.parent.is_dir():
            raise UsageError(f"--output {output}: is a link to {target}, but there is no folder {target.parent}; make it, or "
                             "choose another name")
    if target.name in ("", "..") or os.path.ismount(target):
        raise UsageError(f"--output {output}: cannot be put in place as a whole; name a folder to make in it")
    return target


def check_output(output, arguments):
    """Nothing of ours may become a source, and nothing of others may be lost."""
    for argument in arguments:
        for folder in (output, partial_of(output)):
            if inside(folder, argument):
                raise UsageError(f"--output {output}: lies in the source {argument}, of which it would become a part; choose a "
                                 "folder outside it")
            if inside(argument, folder):
                raise UsageError(f"--output {output}: the source {argument} lies in {folder}; choose another folder")
    try:
        partial_of(output).exists()  # its name is the longer one
    except OSError as error:
        raise UsageError(f"--output {cut(output)}: cannot be written: {error.strerror}") from error
    if output.exists() and not output.is_dir():
        raise UsageError(f"--output {output}: is not a folder; choose another name")
    check_ours(output)


def check_ours(output):
    strange = strange_name(output, KNOWN)
    if strange:
        raise UsageError(f"--output {output}: holds {strange!r}, which is not from lighthouse-prepare; choose another "
                         "folder")


def partial_of(output):
    return output.with_name(output.name + ".partial")


def earlier_manifest(output):
    """Of a data set that is there and whole; else None."""
    try:
        manifest = json.loads((output / MANIFEST).read_text())
        if manifest["format"] != FORMAT:
            return None
        [*report_lines(manifest), manifest["vocab_size"], manifest["made_of"]]  # all that is asked of it
        for data in manifest["data"].values():
            for name, file in data["files"].items():
                if (output / name).stat().st_size != file["bytes"]:
                    return None
        return manifest
    except (OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        return None


def settle_earlier(output, made_of, overwrite):
    """The manifest of an earlier run of the same command, known by options, tokenizer, and names and sizes of files; or None
    where there is work to do."""
    if overwrite or not output.is_dir() or not os.listdir(output):
        return None
    manifest = earlier_manifest(output)
    if manifest and manifest["made_of"] == made_of:
        if is_workplace(partial_of(output)):
            shutil.rmtree(partial_of(output), ignore_errors=True)  # of a run that was killed as it ended
        return manifest
    what = "another data set" if manifest else "a data set that is damaged"
    raise PrepareError(f"--output {output}: holds {what}; choose another folder, or replace it with --overwrite")


def finish(work, output, tokenizer, made_of, seq_lens, overwrite):
    """Turns the workplace into `output`; returns the manifest. May be cut short anywhere and done again."""
    if not work.place.documents["train"]:
        shutil.rmtree(work.folder, ignore_errors=True)
        raise PrepareError(f"no document to train on: {work.place.documents['validation']} for validation, {work.place.empty} "
                           f"empty, {work.place.bad} left out; give more text, or a smaller --validation")
    with writing(work.folder, work.kept()):
        data = {split: finish_split(work, split, tokenizer.dtype, seq_lens) for split in SPLITS}
        shutil.rmtree(work.result / TOKENIZER, ignore_errors=True)
        if tokenizer.files:
            (work.result / TOKENIZER).mkdir()
        for name, content in tokenizer.files.items():
            write_durably(work.result / TOKENIZER / name, content)
        manifest = {"format": FORMAT, "dtype": str(tokenizer.dtype), "vocab_size": tokenizer.vocab_size,
                    "data": {split: value for split, value in data.items() if value},
                    "documents": {"text_bytes": work.place.text_bytes, "empty": work.place.empty, "bad": work.place.bad,
                                  "lost": work.place.lost},
                    "warnings": list(tokenizer.warnings),
                    "tokenizer_files": {name: hashlib.sha256(content).hexdigest() for name, content in tokenizer.files.items()},
                    "made_of": made_of}
        write_durably(work.result / MANIFEST, (json.dumps(manifest, indent=1) + "\n").encode())
        sync_folder(work.result)
        put_in_place(work, output, overwrite)
        shutil.rmtree(work.folder, ignore_errors=True)
    return manifest


def finish_split(work, split, dtype, seq_lens):
    """What the manifest says of a split; None, and no files, for one without documents."""
    documents = work.place.documents[split]
    if documents == 0:
        work.bin(split).unlink(missing_ok=True)
        return None
    lengths = np.memmap(work.lengths(split), dtype="<i4", mode="r", shape=(documents,))
    index = work.bin(split).with_suffix(".idx")
    write_index(index, lengths, dtype)
    files = {path.name: {"bytes": path.stat().st_size, "sha256": sha256_of(path)} for path in (work.bin(split), index)}
    return {"files": files, "statistics": length_statistics(lengths, seq_lens)}


def sha256_of(path):
    """Synced on the way: what the manifest speaks of is on the disk."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def put_in_place(work, output, overwrite):
    """What is replaced waits in the workplace until the new data set stands; Workplace.open puts it back after a kill between
    the two."""
    if output.is_dir() and os.listdir(output):
        check_ours(output)  # again: it may have come meanwhile
        if not overwrite:
            raise PrepareError(f"--output {output}: holds a data set that was not there at the start{work.kept()}; replace it "
                               "with --overwrite")
        shutil.rmtree(work.replaced, ignore_errors=True)
        os.rename(output, work.replaced)
    os.rename(work.result, output)
    sync_folder(output.parent)

"""A corpus in one file that travels to a machine without network: a tar of sorted names without times or owners, in xz."""

import lzma
import os
import shutil
import subprocess
import tarfile
from pathlib import Path

from corpus_build import PARTS, list_files, verify
from corpus_packages import CorpusError

# pb=0 and lc=4 fit bytes of text: a position modulo 4 says nothing there. The block size makes the bytes of the archive
# independent of the number of cores.
XZ = ["xz", "--threads=2", "--block-size=128MiB", "--lzma2=preset=6,dict=64MiB,lc=4,pb=0", "--check=crc64", "--stdout"]


def pack(folder, archive):
    """Writes the archive whole or not at all."""
    folder, archive = Path(folder), Path(archive)
    verify(folder)
    partial = archive.with_name(archive.name + ".partial")
    partial.parent.mkdir(parents=True, exist_ok=True)
    try:
        with open(partial, "wb") as output, subprocess.Popen(XZ, stdin=subprocess.PIPE, stdout=output) as xz:
            with tarfile.open(fileobj=xz.stdin, mode="w|", format=tarfile.GNU_FORMAT) as files:
                for name in (*_similar_together(folder), "manifest.json"):
                    _add(files, folder, name)
            xz.stdin.close()
        if xz.returncode != 0:
            raise BrokenPipeError
        partial.rename(archive)
    except BrokenPipeError:
        raise CorpusError(f"xz failed; '{archive}' is not written") from None
    except FileNotFoundError as error:
        if error.filename != XZ[0]:
            raise
        raise CorpusError("there is no 'xz' on this machine; install xz-utils") from None
    finally:
        partial.unlink(missing_ok=True)


def unpack(archive, folder):
    """Writes the folder whole, with every checksum verified, or not at all. A folder that is right already stays."""
    folder = Path(folder)
    if folder.exists():
        return verify(folder)
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        _extract(archive, partial)
        manifest = verify(partial)
        partial.rename(folder)
        return manifest
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _similar_together(folder):
    """Names by extension and path whatever their part: xz finds likeness best when it is near."""
    names = [(os.path.splitext(path)[1], path, f"{part}/{path}") for part in PARTS for path in list_files(folder / part)]
    return [name for _, _, name in sorted(names)]


def _add(files, folder, name):
    member = tarfile.TarInfo(name)
    member.size, member.mode = (folder / name).stat().st_size, 0o644
    with open(folder / name, "rb") as content:
        files.addfile(member, content)


def _extract(archive, folder):
    try:
        with tarfile.open(archive, "r|xz") as files:
            for member in files:
                target = folder / member.name
                if not member.isreg() or member.name.startswith("/") or ".." in target.parts:
                    raise CorpusError(f"'{archive}' holds '{member.name}', which no packed corpus has")
                target.parent.mkdir(parents=True, exist_ok=True)
                with open(target, "wb") as file:
                    shutil.copyfileobj(files.extractfile(member), file)
    except FileNotFoundError:
        raise CorpusError(f"there is no '{archive}'; 'corpus.py pack' makes it from a corpus") from None
    except (tarfile.TarError, lzma.LZMAError, EOFError) as error:
        raise CorpusError(f"cannot unpack '{archive}': {error}; pack or copy it again") from error

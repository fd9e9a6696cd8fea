"""The pinned archive: fetched through apt, checked, and read file by file."""

import hashlib
import lzma
import subprocess
import tarfile
import tempfile
import zlib
from pathlib import Path

from corpus_packages import CorpusError

CHUNK_BYTES = 1 << 20


def sha256_of(path):
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def fetch_archive(package, folder):
    """The package's archive in `folder`, downloaded if it is not there, with its checksum verified."""
    path = Path(folder) / package.archive
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        _download(package, path)
    found = sha256_of(path)
    if found != package.archive_sha256:
        raise CorpusError(f"'{path}' has SHA-256 {found}, expected {package.archive_sha256} of {package.name} "
                          f"{package.version}; remove the file to fetch it again")
    return path


def read_files(archive):
    """Yields (path, size, read) of the regular files in the archive's order; read() works until the next is asked for."""
    try:
        with tarfile.open(archive, "r|*") as files:
            for member in files:
                _, _, path = member.name.partition("/")
                if member.isreg() and path:
                    yield path, member.size, lambda member=member: files.extractfile(member).read()
    except (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError) as error:
        raise CorpusError(f"cannot read '{archive}': {error}; remove the file to fetch it again") from error


def _download(package, path):
    by_hand = f"; or put {package.archive} with SHA-256 {package.archive_sha256} into '{path.parent}' by hand"
    with tempfile.TemporaryDirectory(dir=path.parent, prefix="apt.") as scratch:
        scratch = Path(scratch).resolve()  # apt runs in it
        (scratch / "sources.list").write_text("".join(f"deb-src [trusted=yes] {line}\n" for line in _debian_archives(by_hand)))
        for name in ("lists/partial", "archives/partial"):
            (scratch / name).mkdir(parents=True)
        options = {"Dir::Etc::SourceList": scratch / "sources.list", "Dir::Etc::SourceParts": "-",
                   "Dir::State::Lists": scratch / "lists", "Dir::Cache": scratch, "APT::Sandbox::User": "root",
                   "Debug::NoLocking": "true"}
        apt = ["apt-get", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
        _run([*apt, "update"], scratch, f"apt cannot list Debian's source packages{by_hand}")
        _run([*apt, "source", "--download-only", "--tar-only", f"{package.name}={package.version}"], scratch,
             f"Debian's archive does not give {package.name} {package.version}, which this corpus is pinned to; "
             f"an archive of old versions in apt's sources would do{by_hand}")
        if not (scratch / package.archive).exists():
            raise CorpusError(f"{package.name} {package.version} came without {package.archive}{by_hand}")
        (scratch / package.archive).rename(path)


def _debian_archives(by_hand):
    """'URI suite component' of each Debian archive that this machine's apt reads. The pinned SHA-256 vouches for content."""
    lines = _run(["apt-get", "indextargets", "--format", "$(ORIGIN)|$(REPO_URI) $(CODENAME) $(COMPONENT)",
                  "Created-By: Packages"], None, f"apt does not tell its archives{by_hand}")
    archives = sorted({line.partition("|")[2] for line in lines.splitlines() if line.startswith("Debian|")})
    if not archives:
        raise CorpusError(f"apt on this machine reads no archive of Debian (run 'apt-get update' first){by_hand}")
    return archives


def _run(command, folder, complaint):
    try:
        result = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        raise CorpusError(f"there is no '{command[0]}' on this machine; the corpus is fetched where there is one") from None
    if result.returncode != 0:
        said = [line for line in result.stderr.splitlines() if line.startswith("E:")] or [f"exit code {result.returncode}"]
        raise CorpusError(f"{complaint} ({said[0]})")
    return result.stdout

"""The corpus of experiments/two_stage: choice, hold-out, near-copies, packing, on a small made-up source tree."""

import dataclasses
import hashlib
import io
import json
import random
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

numpy = pytest.importorskip("numpy")
SCRIPTS = Path(__file__).resolve().parents[2] / "experiments" / "two_stage"
sys.path.insert(0, str(SCRIPTS))

import corpus
import corpus_archive
import corpus_build
import corpus_copies
import corpus_pack
import corpus_select
from corpus_packages import PACKAGES, Archive, Collection, CorpusError, Limits, Package, Releases

COMMON = b"// The same licence stands at the head of every file, and that is no near-copy of anything.\n"


def prose(seed, num_bytes):
    words = random.Random(seed)
    text = bytearray(COMMON)
    while len(text) < num_bytes:
        text += bytes(words.choices(b"abcdefghijklmnopqrstuvwxyz", k=words.randint(2, 12)))
        text += b"\n" if words.random() < 0.15 else b" "
    return bytes(text[:num_bytes])


COPIED = prose(1, 6000)
KEPT = {
    "lib/parse.cpp": COPIED,
    "include/vector": prose(2, 5000),
    "docs/guide.rst": prose(3, 4000),
    "test/small.ll": prose(4, 2500),
    "tool/main.c": prose(5, 5000),
    "tool/near.c": prose(6, 4000) + COPIED[:500],
}
TREE = KEPT | {
    "lib/short.cpp": prose(7, 1900),
    "lib/again.cpp": COPIED,
    "lib/table.inc": b"".join(b"  {%d, 0x%08x},\n" % (n, n * n) for n in range(400)),
    "lib/repeated.h": b"int declare(int value);\n" * 300,
    "lib/one_line.h": prose(8, 4000).replace(b"\n", b" "),
    "lib/latin.c": "é".encode("latin-1") + prose(9, 4000),
    "lib/object.c": b"\0" + prose(10, 4000),
    "lib/generated/out.cpp": prose(11, 4000),
    "lib/picture.svg": prose(12, 4000),
    "notes": prose(13, 4000),
    "test/checks.c": b"\n".join(b"// CHECK-NEXT: " + line for line in prose(14, 4000).split(b"\n")),
    "tool/inner/copy.c": prose(15, 2500) + COPIED[:4000],
}


@pytest.fixture(autouse=True)
def small_filter(monkeypatch):
    monkeypatch.setattr(corpus_copies, "_FILTER_BITS", 16)


def write_archive(archive, tree):
    archive.parent.mkdir(exist_ok=True)
    with tarfile.open(archive, "w:xz") as files:
        for path, data in tree.items():
            member = tarfile.TarInfo(f"small-1.0/{path}")
            member.size = len(data)
            files.addfile(member, io.BytesIO(data))
    return archive


def pinned(package, tmp_path, monkeypatch):
    """The package with the pin that its manifest has, among PACKAGES."""
    monkeypatch.setitem(PACKAGES, package.name, package)
    with pytest.raises(CorpusError, match="pinned") as refused:
        corpus_build.build(package, tmp_path / "trial", tmp_path / "downloads")
    package = dataclasses.replace(package, manifest_sha256=str(refused.value).split("SHA-256 ")[1][:64])
    monkeypatch.setitem(PACKAGES, package.name, package)
    return package


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A package whose archive lies in tmp_path/downloads."""
    archive = write_archive(tmp_path / "downloads" / "small.orig.tar.xz", TREE)
    unpinned = Package(
        name="small", version="1.0-1", licence="none", archive=archive.name, archive_sha256=corpus_archive.sha256_of(archive),
        source=Limits(min_bytes=2048), test=Limits(min_bytes=2048), left_out=("lib/generated/",),
        extensionless=("include/",), held_out=("tool/",), manifest_sha256="")
    return pinned(unpinned, tmp_path, monkeypatch)


@pytest.fixture
def built(package, tmp_path):
    corpus_build.build(package, tmp_path / "corpus", tmp_path / "downloads", say=lambda line: None)
    return tmp_path / "corpus"


def contents(folder):
    return {path: (folder / path).read_bytes() for path in corpus_build.list_files(folder)}


def test_choice_and_hold_out(built):
    train, held_out = contents(built / "train"), contents(built / "heldout")
    assert train | held_out == KEPT
    assert set(held_out) == {"tool/main.c", "tool/near.c"}
    assert not (built / "heldout" / "tool" / "inner").exists()


def test_releases_of_a_file_follow_each_other(tmp_path, monkeypatch):
    first = {"lib/parse.cpp": COPIED, "lib/parse.h": prose(21, 3000), "old/a.cpp": prose(22, 3000), "tool/main.c": prose(23, 3000)}
    second = first | {"lib/parse.cpp": COPIED + b"more", "lib/new.cpp": prose(24, 3000), "tool/main.c": prose(23, 3000) + b"x"}
    third = {"lib/parse.cpp": COPIED[:-9], "lib/parse.h": prose(21, 3000) + b"y", "lib/new.cpp": COPIED[:1000], "tool/main.c": b""}
    archives = []
    for release, tree in enumerate((first, second, third), start=8):
        file = write_archive(tmp_path / "downloads" / f"small-{release:02}.tar.xz", tree)
        archives.append(Archive(name=f"small-{release:02}", version="1", archive=file.name,
                                archive_sha256=corpus_archive.sha256_of(file)))
    package = pinned(Releases(
        name="releases", version="8 to 10", archives=tuple(archives), fewest=2, licence="none", source=Limits(min_bytes=2048),
        test=None, left_out=(), extensionless=(), held_out=("tool/",), manifest_sha256=""), tmp_path, monkeypatch)
    corpus_build.build(package, tmp_path / "corpus", tmp_path / "downloads", say=lambda line: None)
    train = contents(tmp_path / "corpus" / "train")
    assert list(train) == ["lib/parse.cpp/08.cpp", "lib/parse.cpp/09.cpp", "lib/parse.cpp/10.cpp",
                           "lib/parse.h/08.h", "lib/parse.h/10.h"], "no release that changes nothing, no file with one release"
    assert b"".join(train.values()) == (COPIED + COPIED + b"more" + COPIED[:-9] + 2 * prose(21, 3000) + b"y")
    assert not (tmp_path / "corpus" / "train" / "old").exists()
    assert list(contents(tmp_path / "corpus" / "heldout")) == ["tool/main.c/08.c", "tool/main.c/09.c"]


def test_a_collection_has_code_and_prose_of_several_archives_apart(tmp_path, monkeypatch):
    trees = {"first": {"lib/a.cpp": prose(31, 3000), "docs/guide.rst": prose(32, 3000), "held/b.cpp": prose(33, 3000)},
             "second": {"doc/a.txt": prose(34, 3000), "doc/b.txt": prose(35, 3000), "src/a.cpp": prose(36, 3000)}}
    archives = []
    for name, tree in trees.items():
        file = write_archive(tmp_path / "downloads" / f"{name}.tar.xz", tree)
        archives.append(Archive(name=name, version="1", archive=file.name, archive_sha256=corpus_archive.sha256_of(file)))
    package = pinned(Collection(
        name="collection", version="1", archives=tuple(archives), chosen=("code/first/", "prose/first/docs/", "prose/second/doc/"),
        licence="none", source=Limits(min_bytes=2048), test=None, left_out=(), extensionless=(),
        held_out=("code/first/held/", "prose/second/doc/b.txt"), manifest_sha256=""), tmp_path, monkeypatch)
    corpus_build.build(package, tmp_path / "corpus", tmp_path / "downloads", say=lambda line: None)
    assert list(contents(tmp_path / "corpus" / "train")) == ["code/first/lib/a.cpp", "prose/first/docs/guide.rst", "prose/second/doc/a.txt"]
    assert list(contents(tmp_path / "corpus" / "heldout")) == ["code/first/held/b.cpp", "prose/second/doc/b.txt"]


def test_manifest(built):
    manifest = json.loads((built / "manifest.json").read_text())
    train = contents(built / "train")
    lines = "".join(f"{path}\t{len(data)}\t{hashlib.sha256(data).hexdigest()}\n" for path, data in sorted(train.items()))
    assert manifest["train"]["listing_sha256"] == hashlib.sha256(lines.encode()).hexdigest()
    assert manifest["train"]["bytes_by_kind"] == {"C and C++": 11000, "documentation": 4000,
                                                  "tests: compiler IR and assembly": 2500}
    copies = manifest["near_copies"]["held_out"]["tool"]
    assert (copies["files"], copies["dropped_files"], copies["dropped_bytes"]) == (2, 1, len(TREE["tool/inner/copy.c"]))
    # 500 copied bytes, of which the first line is in every file: 437 windows; and 28 of that line at the head of both.
    seen, total = 437 + 2 * (len(COMMON) - 63), 5000 - 63 + 4500 - 63
    assert copies["share_seen"] == pytest.approx(seen / total, abs=1e-5)


def test_shingles_are_windows():
    text = prose(16, 1000)
    hashes = corpus_copies.shingles(text + text)
    assert len(hashes) == 2000 - 63
    assert len(numpy.unique(hashes)) == len({(text + text)[at : at + 64] for at in range(2000 - 63)}) == 1000
    assert len(corpus_copies.shingles(text[:63])) == 0


def test_shingles_do_not_depend_on_chunks(monkeypatch):
    text = prose(17, 3000)
    whole = corpus_copies.shingles(text)
    monkeypatch.setattr(corpus_copies, "_CHUNK", 100)
    assert numpy.array_equal(corpus_copies.shingles(text), whole)


def test_pack_travels(built, tmp_path, capsys):
    assert corpus.main(["pack", str(built), str(tmp_path / "a.tar.xz")]) == 0
    assert corpus.main(["unpack", str(tmp_path / "a.tar.xz"), str(tmp_path / "there")]) == 0
    assert contents(tmp_path / "there") == contents(built)
    assert "small 1.0-1" in capsys.readouterr().out
    assert corpus.main(["pack", str(tmp_path / "there"), str(tmp_path / "b.tar.xz")]) == 0
    assert (tmp_path / "a.tar.xz").read_bytes() == (tmp_path / "b.tar.xz").read_bytes()
    assert corpus.main(["unpack", str(tmp_path / "a.tar.xz"), str(tmp_path / "there")]) == 0


def test_build_leaves_a_right_folder_alone(built, package, tmp_path):
    (tmp_path / "downloads" / package.archive).unlink()
    said = []
    corpus_build.build(package, built, tmp_path / "downloads", said.append)
    assert "there and right" in said[0]


def refusal(capsys, *arguments):
    assert corpus.main([str(word) for word in arguments]) == 1
    message = capsys.readouterr().err
    assert message.startswith("corpus: ") and "Traceback" not in message
    return message


def test_damage_is_refused(built, package, tmp_path, capsys):
    corpus_pack.pack(built, tmp_path / "a.tar.xz")
    (built / "train" / "lib" / "parse.cpp").write_bytes(COPIED[:-1] + b"!")
    assert "listing" in refusal(capsys, "verify", built)
    assert "listing" in refusal(capsys, "pack", built, tmp_path / "b.tar.xz") and not (tmp_path / "b.tar.xz").exists()
    (built / "manifest.json").write_text("{")
    assert "damaged" in refusal(capsys, "verify", built)
    packed = (tmp_path / "a.tar.xz").read_bytes()
    (tmp_path / "short.tar.xz").write_bytes(packed[: len(packed) // 2])
    assert "cannot unpack" in refusal(capsys, "unpack", tmp_path / "short.tar.xz", tmp_path / "there")
    assert "no '" in refusal(capsys, "unpack", tmp_path / "none.tar.xz", tmp_path / "there")
    assert not list(tmp_path.glob("there*"))
    archive = tmp_path / "downloads" / package.archive
    archive.write_bytes(archive.read_bytes()[:-100])
    assert package.archive_sha256 in refusal(capsys, "build", tmp_path / "new", "--package", "small", "--downloads",
                                             tmp_path / "downloads")


def test_pack_without_xz(built, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(corpus_pack, "XZ", ["no-such-xz"])
    assert "xz-utils" in refusal(capsys, "pack", built, tmp_path / "a.tar.xz")
    monkeypatch.setattr(corpus_pack, "XZ", ["false"])
    assert "is not written" in refusal(capsys, "pack", built, tmp_path / "a.tar.xz")
    assert not list(tmp_path.glob("a.tar.xz*"))


def test_pack_refuses_names_that_leave_the_folder(tmp_path):
    with tarfile.open(tmp_path / "bad.tar.xz", "w:xz") as files:
        files.addfile(tarfile.TarInfo("../outside"))
    with pytest.raises(CorpusError, match="outside"):
        corpus_pack.unpack(tmp_path / "bad.tar.xz", tmp_path / "there")
    assert not (tmp_path / "outside").exists() and not list(tmp_path.glob("there*"))


def test_archive_that_lost_the_version(package, tmp_path, monkeypatch):
    def apt(command, **options):
        status = 100 if "source" in command else 0
        return subprocess.CompletedProcess(command, status, "Debian|somewhere/ suite main\n", "E: Can not find version '1.0-1'\n")

    monkeypatch.setattr(corpus_archive.subprocess, "run", apt)
    with pytest.raises(CorpusError, match=r"does not give small 1.0-1.*SHA-256.*Can not find version"):
        corpus_archive.fetch_archive(package, tmp_path / "elsewhere")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_archive_is_fetched_into_a_folder_named_from_here(package, tmp_path, monkeypatch):
    """apt runs in a folder of its own, where a relative path would lead elsewhere."""
    folders = []

    def apt(command, cwd=None, **options):
        folders.extend(word.partition("=")[2] for word in command if word.startswith("Dir::"))
        if "source" in command:
            (Path(cwd) / package.archive).write_bytes(b"")
        return subprocess.CompletedProcess(command, 0, "Debian|somewhere/ suite main\n", "")

    monkeypatch.setattr(corpus_archive.subprocess, "run", apt)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CorpusError, match="has SHA-256"):
        corpus_archive.fetch_archive(package, "elsewhere")
    assert folders and all(Path(folder).is_absolute() for folder in folders if folder != "-")


def test_wrong_usage():
    with pytest.raises(SystemExit) as stopped:
        corpus.main(["build"])
    assert stopped.value.code == 2


@pytest.mark.parametrize("path, kind", [("lib/a.cpp", "C and C++"), ("unittests/x/a.cpp", "tests: C and C++"),
                                        ("include/map", "C and C++"), ("src/map", None), (".h", None), ("test/README", None)])
def test_kinds(package, path, kind):
    assert corpus_select.kind_of(package, path) == kind

"""A corpus on disk: FOLDER/train, FOLDER/heldout and FOLDER/manifest.json, which says what is in them."""

import collections
import dataclasses
import hashlib
import json
import shutil
from pathlib import Path

from corpus_archive import sha256_of
from corpus_packages import PACKAGES, CorpusError, Releases
from corpus_archives import read_package
from corpus_select import is_held_out, is_text, kind_of, limits_of

PARTS = ("train", "heldout")
MAX_SEEN = 0.2  # share of a held-out file's shingles that may stand in the training text
SEQUENCE_BYTES = 32768


def build(package, folder, downloads, say=print):
    """Fetches, chooses, counts near-copies and writes; what is there and right already is left alone."""
    folder = Path(folder)
    if folder.exists():
        verify(folder, package)
        say(f"'{folder}' is there and right")
        return
    partial = folder.with_name(folder.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    choose(package, read_package(package, downloads), partial)
    if isinstance(package, Releases):
        drop_short_histories(package, partial)
    near_copies = drop_near_copies(package, partial)
    write_manifest(package, partial, near_copies)
    check_pin(package, partial)
    partial.rename(folder)
    say(summary(folder))


def choose(package, files, folder):
    """Writes the chosen files below folder/train and folder/heldout. A file with the bytes of an earlier one is left out."""
    written = set()
    for path, size, read in files:
        limits = limits_of(package, path)
        if limits is None or not limits.min_bytes <= size <= limits.max_bytes:
            continue
        data = read()
        digest = hashlib.sha256(data).digest()
        if digest in written or not is_text(limits, data):
            continue
        written.add(digest)
        target = folder / PARTS[is_held_out(package, path)] / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    for part in PARTS:
        if not list_files(folder / part):
            raise CorpusError(f"{package.name}: the rules choose no file for {part}; see corpus_packages.py")


def drop_short_histories(package, folder):
    """Removes the files of which fewer than package.fewest releases were chosen."""
    for history in {(folder / path).parent for path in list_files(folder)}:
        if len(list(history.iterdir())) < package.fewest:
            shutil.rmtree(history)
            _remove_empty(history.parent)


def drop_near_copies(package, folder):
    """Removes held-out files with more than MAX_SEEN of their shingles in the training text; counts by held-out folder."""
    from corpus_copies import SHINGLE_BYTES, HeldOutShingles  # the one place that needs numpy

    held_out = list_files(folder / "heldout")
    shingles = HeldOutShingles([(folder / "heldout" / path).read_bytes() for path in held_out])
    for path in list_files(folder / "train"):
        shingles.show((folder / "train" / path).read_bytes())
    counts = {name: collections.Counter() for name in ("", *package.held_out)}
    for path in held_out:
        file = folder / "heldout" / path
        size = file.stat().st_size
        seen, total = shingles.count_seen(file.read_bytes())
        dropped = seen > MAX_SEEN * total
        for name in counts:
            if path.startswith(name):
                counts[name].update({"dropped_files": 1, "dropped_bytes": size} if dropped else
                                    {"files": 1, "bytes": size, "seen": seen, "shingles": total})
        if dropped:
            file.unlink()
            _remove_empty(file.parent)
    for name, count in counts.items():
        if count["files"] == 0:
            raise CorpusError(f"{package.name}: no file of held-out '{name}' is left: each has more than {MAX_SEEN:.0%} of "
                              "its shingles in the training text")
    rows = {name.rstrip("/") or "all": {
        "files": count["files"], "bytes": count["bytes"], "share_seen": round(count["seen"] / max(count["shingles"], 1), 5),
        "dropped_files": count["dropped_files"], "dropped_bytes": count["dropped_bytes"]} for name, count in counts.items()}
    return {"shingle_bytes": SHINGLE_BYTES, "dropped_above": MAX_SEEN, "held_out": rows}


def _remove_empty(folder):
    while not any(folder.iterdir()):
        folder.rmdir()
        folder = folder.parent


def write_manifest(package, folder, near_copies):
    rules = dataclasses.asdict(package)
    del rules["manifest_sha256"]
    manifest = rules | {part: describe_part(package, folder / part) for part in PARTS} | {"near_copies": near_copies}
    text = json.dumps(manifest, indent=1, sort_keys=True) + "\n"
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def describe_part(package, folder):
    """Counts and one checksum: SHA-256 over lines 'path TAB size TAB sha256' in byte order of the paths."""
    kinds, listing, sizes = collections.Counter(), hashlib.sha256(), []
    for path in list_files(folder):
        size = (folder / path).stat().st_size
        sizes.append(size)
        kinds[kind_of(package, path)] += size
        listing.update(f"{path}\t{size}\t{sha256_of(folder / path)}\n".encode())
    return {"files": len(sizes), "bytes": sum(sizes), "bytes_by_kind": dict(kinds), "listing_sha256": listing.hexdigest(),
            "sequences_of_32768": sum(sizes) // SEQUENCE_BYTES}


def list_files(folder):
    """Paths of the regular files below a folder, in byte order, as `lighthouse train --data.path` reads them."""
    return sorted((path.relative_to(folder).as_posix() for path in Path(folder).rglob("*") if path.is_file()),
                  key=lambda path: path.encode())


def read_manifest(folder):
    """The manifest and the package that it names."""
    path = Path(folder) / "manifest.json"
    try:
        manifest = json.loads(path.read_bytes())
        return manifest, PACKAGES[manifest["name"]]
    except FileNotFoundError:
        raise CorpusError(f"'{folder}' is no corpus: it has no manifest.json; remove the folder or name another") from None
    except (ValueError, KeyError, TypeError):
        raise CorpusError(f"'{path}' is damaged or of another program; remove '{folder}' and build it again") from None


def check_pin(package, folder):
    found = sha256_of(Path(folder) / "manifest.json")
    if found != package.manifest_sha256:
        raise CorpusError(f"the manifest of '{folder}' has SHA-256 {found}, but {package.name} is pinned to "
                          f"{package.manifest_sha256}: other rules or another archive made it; see its differences to the "
                          "table in README.md")


def verify(folder, package=None):
    """Raises CorpusError unless every byte below the folder is what the pinned manifest says."""
    manifest, named = read_manifest(folder)
    if package and named is not package:
        raise CorpusError(f"'{folder}' holds {named.name}, not {package.name}; name another folder")
    check_pin(named, folder)
    for part in PARTS:
        found, expected = describe_part(named, Path(folder) / part), manifest[part]
        if found != expected:
            raise CorpusError(f"'{folder}/{part}' has {found['files']} files of {found['bytes']} bytes, listing "
                              f"{found['listing_sha256']}; its manifest says {expected['files']} of {expected['bytes']}, "
                              f"{expected['listing_sha256']}; remove '{folder}' and build or unpack it again")
    return manifest


def summary(folder):
    manifest, package = read_manifest(folder)
    copies = manifest["near_copies"]["held_out"]["all"]
    lines = [f"{package.name} {package.version} in '{folder}'"]
    for part in PARTS:
        row = manifest[part]
        kinds = ", ".join(f"{kind} {size / 1e6:.1f}" for kind, size in sorted(row["bytes_by_kind"].items(), key=lambda k: -k[1]))
        lines.append(f"  {part}: {row['files']} files, {row['bytes'] / 1e6:.1f} MB ({kinds})")
    lines.append(f"  near-copies: {copies['share_seen']:.2%} of the held-out 64-byte shingles stand in train; "
                 f"{copies['dropped_files']} files above {MAX_SEEN:.0%} dropped")
    return "\n".join(lines)

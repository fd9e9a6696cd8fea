"""Where a data set grows: OUTPUT.partial, which a later start goes on with, and which becomes OUTPUT when it is whole.

    plan.json            what is made of what: options, tokenizer, files
    progress.json        how far it is: replaced after the data that it speaks of is on the disk
    train.lengths        int32, tokens of each document; validation.lengths too
    result/train.bin     tokens; what progress.json does not speak of is cut off by the next start
    replaced/            the data set that was OUTPUT before, until the new one is
    lock                 held by the process that works here
"""

import contextlib
import fcntl
import json
import os
import shutil
import time
from dataclasses import asdict, dataclass, field

from .encode import SPLITS
from .errors import PrepareError, writing

PLAN, PROGRESS, LOCK, RESULT, REPLACED = "plan.json", "progress.json", "lock", "result", "replaced"
MANIFEST, TOKENIZER = "manifest.json", "tokenizer"
KNOWN = {MANIFEST, TOKENIZER, *(f"{split}.{ending}" for split in SPLITS for ending in ("bin", "idx"))}  # of a data set
OURS = {PLAN, PROGRESS, LOCK, RESULT, REPLACED, *(f"{split}.lengths" for split in SPLITS), f".{PLAN}.tmp", f".{PROGRESS}.tmp"}


@dataclass
class Place:
    """How far a data set is."""
    file: int = 0
    record: int = 0
    documents: dict = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    tokens: dict = field(default_factory=lambda: dict.fromkeys(SPLITS, 0))
    text_bytes: int = 0
    empty: int = 0
    bad: int = 0
    lost: dict = field(default_factory=lambda: {"documents": 0, "characters": 0})  # without a token

    def after(self, encoded):
        return Place(*encoded.after,
                     {split: self.documents[split] + len(encoded.lengths[split]) for split in SPLITS},
                     {split: self.tokens[split] + int(encoded.lengths[split].sum()) for split in SPLITS},
                     self.text_bytes + encoded.text_bytes, self.empty + encoded.empty, self.bad + len(encoded.problems),
                     {"documents": self.lost["documents"] + len(encoded.lost),
                      "characters": self.lost["characters"] + sum(map(len, encoded.lost))})


def read_place(value):
    """Raises KeyError or TypeError for what is none."""
    place = Place(**value)
    counts = [place.file, place.record, place.text_bytes, place.empty, place.bad, place.lost["documents"],
              place.lost["characters"],
              *(count[split] for count in (place.documents, place.tokens) for split in SPLITS)]
    if not all(isinstance(count, int) and count >= 0 for count in counts):
        raise TypeError
    return place


class Workplace:
    """A context: the folder, locked. `place` is where to go on."""

    def __init__(self, output, plan, itemsize, interval, overwrite=False):
        """`plan`: {"options": {..}, "tokenizer": {..}, "sources": [identities]}; `itemsize`: bytes of a token; `interval`:
        seconds between checkpoints."""
        self.folder = output.with_name(output.name + ".partial")
        self.result, self.replaced = self.folder / RESULT, self.folder / REPLACED
        self.plan, self.itemsize, self.interval = plan, itemsize, interval
        check_workplace(self.folder)
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock = open(self.folder / LOCK, "a")
        try:
            self.open(output, overwrite)
        except BaseException:
            self.lock.close()
            raise

    def open(self, output, overwrite):
        try:
            fcntl.flock(self.lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise PrepareError(f"{self.folder}: another lighthouse-prepare works there; wait for it, or give another "
                               "--output") from error
        if self.replaced.is_dir() and not (output.exists() and os.listdir(output)):  # killed before the new one stood there
            with writing(output):
                os.rename(self.replaced, output)
        self.place, self.earlier = self.resume(overwrite)  # earlier: a place before the file that is being read
        self.resumed = self.place != Place()
        with writing(self.folder):
            self.result.mkdir(exist_ok=True)
            replace_json(self.folder / PLAN, self.plan)
            self.files = {}
            for split in SPLITS:
                for path, size in ((self.bin(split), self.place.tokens[split] * self.itemsize),
                                   (self.lengths(split), self.place.documents[split] * 4)):
                    self.files[path] = cut(path, size)
        self.saved_at = time.monotonic()

    def bin(self, split):
        return self.result / f"{split}.bin"

    def lengths(self, split):
        return self.folder / f"{split}.lengths"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for file in self.files.values():
            with contextlib.suppress(OSError):
                file.close()
        if self.place == Place():
            shutil.rmtree(self.folder, ignore_errors=True)  # nothing to go on with
        self.lock.close()

    # ---- going on ---------------------------------------------------------------------------------------------------

    def resume(self, overwrite):
        """The two places."""
        plan, progress = load_json(self.folder / PLAN), load_json(self.folder / PROGRESS)
        if not plan or not progress:
            return Place(), Place()
        try:
            self.check_same(plan)
            return self.unchanged(plan["sources"], read_place(progress["place"]), read_place(progress["earlier"]))
        except (KeyError, TypeError, PrepareError) as error:
            if overwrite:
                return Place(), Place()
            reason = error if isinstance(error, PrepareError) else f"{self.folder}: is damaged"
            raise PrepareError(f"{reason}; --overwrite begins anew") from error

    def check_same(self, plan):
        for key, what in (("tokenizer", "another tokenizer"), ("options", "other options")):
            if plan[key] != self.plan[key]:
                raise PrepareError(f"{self.folder}: was begun with {what} ({difference(plan[key], self.plan[key])})")

    def unchanged(self, before, place, earlier):
        """The two places, where what has been read is as it was; what comes after it may have changed. The file that is being
        read may have been mended: it is read from its begin."""
        for file, (old, new) in enumerate(zip(before, [*self.plan["sources"], *[None] * len(before)])):
            if file < place.file and old != new:
                raise PrepareError(f"{old[0]}: has changed or is gone since {self.folder} was begun")
            if file == place.file and old != new:
                return earlier, earlier
        return place, earlier

    # ---- growing ----------------------------------------------------------------------------------------------------

    def append(self, encoded):
        with writing(self.folder, self.kept()):
            for split in SPLITS:
                self.files[self.bin(split)].write(encoded.tokens[split])
                self.files[self.lengths(split)].write(encoded.lengths[split].tobytes())
        last, self.place = self.place, self.place.after(encoded)
        if self.place.record == 0:
            self.earlier = self.place
        elif self.place.file != last.file:
            self.earlier = last
        if time.monotonic() - self.saved_at >= self.interval:
            self.save()

    def save(self):
        """Data first, then what speaks of it."""
        with writing(self.folder, self.kept()):
            for file in self.files.values():
                file.flush()
                os.fsync(file.fileno())
            replace_json(self.folder / PROGRESS, {"place": asdict(self.place), "earlier": asdict(self.earlier)})
        self.saved_at = time.monotonic()

    def kept(self):
        return f"; what is done is kept in {self.folder}, and the same command goes on from there"


def strange_name(folder, known):
    """The first name in a folder that is not among those known; None where all are, or where there is no folder."""
    return min(set(os.listdir(folder)) - known, default=None) if folder.is_dir() else None


def check_workplace(folder):
    """Nothing of others is written to or removed."""
    for place, known in ((folder, OURS), (folder / RESULT, KNOWN), (folder / REPLACED, KNOWN)):
        strange = strange_name(place, known)
        if strange:
            raise PrepareError(f"{place}: holds {strange!r}, which is not from lighthouse-prepare; move it away, or give another "
                               "--output")


def is_workplace(folder):
    try:
        check_workplace(folder)
    except PrepareError:
        return False
    return (folder / LOCK).exists() or (folder / RESULT).exists()


def cut(path, size):
    """The file, open to go on after its first `size` bytes."""
    file = open(path, "ab")
    if file.tell() < size:
        file.close()
        raise PrepareError(f"{path}: is shorter than {PROGRESS} beside it says: damaged; --overwrite begins anew")
    file.truncate(size)
    return file


def load_json(path):
    try:
        return json.loads(path.read_text())
    except FileNotFoundError:
        return None
    except (ValueError, RecursionError) as error:
        raise PrepareError(f"{path}: is damaged: {error}; remove {path.parent} to begin anew") from error


def replace_json(path, value):
    temporary = path.with_name(f".{path.name}.tmp")
    write_durably(temporary, json.dumps(value).encode())
    os.replace(temporary, path)
    sync_folder(path.parent)


def write_durably(path, content):
    with open(path, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def sync_folder(path):
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def difference(before, now):
    """"key: was this, is that" of the first few keys that differ."""
    keys = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    return ", ".join(f"{key} {json.dumps(before.get(key))} there, {json.dumps(now.get(key))} here" for key in keys[:3])

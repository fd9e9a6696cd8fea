"""The whole way from sources to a data set."""

import contextlib
import signal
import sys

from .encode import Encoder
from .errors import PrepareError, Stopped
from .progress import Progress
from .reader import Reading, read_sources
from .result import check_output, finish, resolve_output, settle_earlier
from .sources import endings_text, list_sources
from .tokenizer import check_vocabulary, load_tokenizer
from .workers import ordered_map
from .workplace import Workplace

PROBLEMS_SHOWN = 10


def prepare(options):
    """`options`: of the command line (__main__.py). Returns the manifest. Raises PrepareError."""
    output = resolve_output(options.output)
    check_output(output, options.sources)
    tokenizer = load_tokenizer(options.tokenizer, options.end_of_text, options.begin_of_text, options.parse_special)
    check_vocabulary(tokenizer, options.vocab_size)
    sources, left_out = list_sources(options.sources, options.text_endings)
    made_of = {"options": {key: getattr(options, key) for key in ("text_key", "separator", "validation", "max_document_mib")},
               "tokenizer": tokenizer.describe(),
               "sources": [{"name": source.name, "bytes": source.bytes} for source in sources]}
    manifest = settle_earlier(output, made_of, options.overwrite)
    if manifest:
        print(f"lighthouse-prepare: {options.output} is there already, of files of the same names and sizes; --overwrite makes "
              "it again", file=sys.stderr)
        return manifest
    plan = made_of | {"sources": [source.identity for source in sources]}
    with stop_signals() as stopped, Workplace(output, plan, tokenizer.dtype.itemsize, options.checkpoint_seconds,
                                              options.overwrite) as work:
        encode_all(work, options, tokenizer, sources, left_out, stopped)
        return finish(work, output, tokenizer, made_of, options.seq_lens, options.overwrite)


def encode_all(work, options, tokenizer, sources, left_out, stopped):
    reading = Reading(options.text_key, options.separator.encode(), options.max_document_mib << 20, options.skip_bad)
    start = (work.place.file, work.place.record)
    total = sum(source.bytes for source in sources)
    with Progress(total, sum(source.bytes for source in sources[:start[0]])) as progress:
        announce(progress, work, sources, left_out)
        for warning in tokenizer.warnings:
            progress.say(f"warning: {warning}")
        chunks = read_sources(sources, start, reading)
        results = ordered_map(Encoder, (tokenizer, reading, options.validation), chunks, options.processes)
        with contextlib.closing(results), saving(work), stopping(work, stopped):
            for encoded in results:
                if stopped:
                    break
                show_problems(progress, work, encoded.problems)
                show_lost(progress, work, encoded.lost)
                work.append(encoded)
                progress.add(encoded, sum(int(lengths.sum()) for lengths in encoded.lengths.values()))


@contextlib.contextmanager
def stopping(work, stopped):
    """What fails after a signal fails for it: a worker may have got it too."""
    try:
        yield
    except PrepareError:
        if not stopped:
            raise
    if stopped:
        raise Stopped(f"stopped by {signal.Signals(stopped[0]).name}{work.kept()}")


@contextlib.contextmanager
def saving(work):
    """However it ends, what is done is kept; that it cannot be says less than why it ends."""
    try:
        yield
    except BaseException:
        with contextlib.suppress(PrepareError):
            work.save()
        raise
    work.save()


def announce(progress, work, sources, left_out):
    if work.resumed:
        done = sum(work.place.documents.values())
        progress.say(f"going on in {work.folder} after {done:,} documents")
    if left_out:
        progress.say(f"left out by their endings: {endings_text(left_out)}; --text-endings names more endings of text")
    empty = [source.name for source in sources if source.bytes == 0 and not source.compression]
    if empty:
        progress.say(f"empty: {', '.join(empty[:5])}{', …' if len(empty) > 5 else ''}")


def show_problems(progress, work, problems):
    for number, problem in enumerate(problems, work.place.bad + 1):
        if number <= PROBLEMS_SHOWN:
            progress.say(f"left out: {problem}")
        elif number == PROBLEMS_SHOWN + 1:
            progress.say("left out: more, which are counted at the end")


def show_lost(progress, work, lost):
    if lost and not work.place.lost["documents"]:
        progress.say(f"warning: the tokenizer has no token for {lost[0][0]!r}, nor one for what it does not know: such characters "
                     "are lost, and counted at the end")


@contextlib.contextmanager
def stop_signals():
    """A list that the first SIGINT or SIGTERM is put into; the second acts as ever."""
    received = []

    def note(number, _):
        received.append(number)
        signal.signal(number, before[number])

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, note)
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

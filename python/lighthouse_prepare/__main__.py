"""The command: lighthouse-prepare SOURCE ... --tokenizer TOKENIZER --output FOLDER. Exit codes: 0 done, 1 failed or stopped,
2 wrong usage."""

import argparse
import math
import os
import sys
from pathlib import Path
from shlex import quote

from .errors import PrepareError, UsageError, cut
from .prepare import prepare
from .sources import READ_OTHERWISE
from .statistics import report_lines
from .verify import Verify

DESCRIPTION = """Turns text into Megatron-LM data sets that `lighthouse train` reads. Sources are files and folders: .txt and
.md (a file is a document), .jsonl (an object in each line) and .parquet; all but parquet also compressed, .gz or .zst. The
same command goes on where an earlier one was stopped or killed, and ends with the same bytes."""


def parse(arguments):
    parser = argparse.ArgumentParser(prog="lighthouse-prepare", description=DESCRIPTION, allow_abbrev=False)
    parser.add_argument("sources", nargs="+", metavar="SOURCE", help="file, or folder of files")
    parser.add_argument("--tokenizer", required=True, metavar="TOKENIZER",
                        help="tokenizer.json, a folder with one, a sentencepiece model (.model), or bytes")
    parser.add_argument("--output", required=True, metavar="FOLDER", help="folder to write: complete or not there at all")
    parser.add_argument("--text-key", default="text", metavar="KEY",
                        help="of JSON objects, or column of tables; default: %(default)s")
    parser.add_argument("--text-endings", nargs="+", default=[], metavar="ENDING", help="more endings of text files, as .py .h")
    parser.add_argument("--separator", default="", metavar="TEXT", help="what stands between the documents of a text file")
    parser.add_argument("--end-of-text", metavar="TOKEN", help="token after every document; default: the tokenizer's own")
    parser.add_argument("--begin-of-text", metavar="TOKEN", help="token before every document; default: none")
    parser.add_argument("--parse-special", action="store_true", help="take names of special tokens in a text for these tokens")
    parser.add_argument("--validation", type=float, default=0.01, metavar="SHARE",
                        help="of the documents, chosen by a hash of the text; default: %(default)s")
    parser.add_argument("--vocab-size", type=int, metavar="N", help="of the model: a tokenizer with more tokens is refused")
    parser.add_argument("--skip-bad", action="store_true", help="leave documents out that cannot be read, instead of stopping")
    parser.add_argument("--max-document-mib", type=int, default=16, metavar="M",
                        help="longer documents are refused; default: %(default)s")
    parser.add_argument("--processes", type=int, default=None, metavar="P", help="default: one for each core")
    parser.add_argument("--seq-lens", type=int, nargs="+", default=[4096, 32768, 131072], metavar="N",
                        help="sequence lengths of which the statistics tell; default: 4096 32768 131072")
    parser.add_argument("--checkpoint-seconds", type=float, default=10, metavar="S",
                        help="what a kill may cost; default: %(default)s")
    parser.add_argument("--overwrite", action="store_true", help="replace an earlier data set, or one begun with other options")
    parser.add_argument("--verify", action=Verify, metavar="FOLDER",
                        help="read an earlier data set, compare it with the checksums of its manifest, and do nothing else")
    return checked(parser, parser.parse_args(arguments))


def checked(parser, options):
    def need(good, name, value, what):
        if not good:
            parser.error(f"{name} {value}: must be {what}")

    need(options.output.strip("/"), "--output", repr(options.output), "the name of a folder")
    need(options.text_key, "--text-key", "''", "the name of a key")
    for name, text in (("--text-key", options.text_key), ("--separator", options.separator)):
        need(is_utf8(text), name, repr(text), "UTF-8, as text is")
    need(all(options.sources), "SOURCE", "''", "the name of a file or folder")
    need(options.tokenizer, "--tokenizer", "''", "the name of a file or folder")
    need(all(len(ending) > 1 and ending.startswith(".") for ending in options.text_endings), "--text-endings",
         " ".join(options.text_endings), "endings that begin with a dot, as .py")
    need(not READ_OTHERWISE.intersection(ending.lower() for ending in options.text_endings), "--text-endings",
         " ".join(options.text_endings), f"other endings than {', '.join(sorted(READ_OTHERWISE))}, which are not read as text")
    need(math.isfinite(options.validation) and 0 <= options.validation < 1, "--validation", options.validation,
         "at least 0 and below 1: a share, not a percentage")
    need(options.vocab_size is None or options.vocab_size >= 1, "--vocab-size", options.vocab_size, "at least 1")
    need(1 <= options.max_document_mib <= 1024, "--max-document-mib", options.max_document_mib, "from 1 to 1024")
    if options.processes is None:
        options.processes = len(os.sched_getaffinity(0))
    need(1 <= options.processes <= 1024, "--processes", options.processes, "from 1 to 1024")
    need(all(1 <= length <= 1 << 30 for length in options.seq_lens), "--seq-lens", " ".join(map(str, options.seq_lens)),
         f"from 1 to {1 << 30}")
    need(0 <= options.checkpoint_seconds <= 86400, "--checkpoint-seconds", options.checkpoint_seconds, "from 0 to 86400")
    options.output = Path(options.output)
    options.text_endings = [ending.lower() for ending in options.text_endings]
    return options


def is_utf8(argument):
    """Other bytes of a command line become surrogates."""
    return not any("\ud800" <= character <= "\udfff" for character in argument)


def train_command(options, manifest):
    words = ["lighthouse train --data.path", quote(f"{options.output}/train"), "--model.vocab_size", str(manifest["vocab_size"])]
    if "validation" in manifest["data"]:
        words += ["--data.validation_path", quote(f"{options.output}/validation")]
    return " ".join(words)


def words_of(error):
    if isinstance(error, OSError) and error.filename:
        return f"{cut(os.fsdecode(error.filename))}: {error.strerror}"
    return str(error)


def main(arguments=None):
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error has it: a name may be of any bytes
    options = parse(arguments)
    try:
        manifest = prepare(options)
    except (PrepareError, OSError, MemoryError) as error:
        message = " ".join(words_of(error).split()) or "not enough memory; give fewer --processes"
        print(f"lighthouse-prepare: {message}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    print("\n".join(report_lines(manifest)))
    print(f"next: {train_command(options, manifest)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""The command: lighthouse-report [NAME=]RUN ... --output page.html. Exit codes: 0 done, 1 failed, 2 wrong usage."""

import argparse
import os
import sys
from pathlib import Path

from . import output
from .arms import make_arms
from .errors import ReportError, UsageError
from .page import specification
from .runs import read_run
from .text import drawable, one_line

DESCRIPTION = """Draws runs of `lighthouse train`, also in progress, and what `lighthouse eval --json` found (RUN/eval*.json)
as one self-contained page. Runs that differ in their seeds only are one arm; arms are compared with the first dense one, seed
by seed."""


def parse(arguments):
    parser = argparse.ArgumentParser(prog="lighthouse-report", description=DESCRIPTION)
    parser.add_argument("runs", nargs="+", metavar="[NAME=]RUN", help="run folder; NAME: of its arm, instead of what differs")
    parser.add_argument("--output", required=True, type=Path, metavar="PAGE.html",
                        help="the page; it needs no other file and no network")
    parser.add_argument("--svg", type=Path, metavar="FILE", help="the same as SVG")
    parser.add_argument("--png", type=Path, metavar="FILE", help="the same as PNG, two pixels to one of the page")
    parser.add_argument("--baseline", type=drawable, metavar="NAME",
                        help="the arm that others are compared with; default: the first dense one, else the first")
    parser.add_argument("--margin", type=float, default=0.5, metavar="PERCENT",
                        help="of the baseline's loss: what is still not inferior; default: %(default)s")
    parser.add_argument("--title", type=drawable, default="Lighthouse training runs", help="default: %(default)s")
    options = parser.parse_args(arguments)
    if not 0 <= options.margin <= 100:
        parser.error(f"--margin {options.margin:g}: must be from 0 to 100, in percent")
    if len(set(map(os.path.realpath, targets(options)))) < len(targets(options)):
        parser.error("--output, --svg and --png: must be different files")
    return options


def targets(options):
    return [path for path in (options.output, options.svg, options.png) if path]


def named_run(text):
    """("name", path) of NAME=RUN, (None, path) of RUN; a folder whose name has a = in it is a RUN."""
    name, equals, path = text.partition("=")
    return (name, Path(path)) if equals and name and not os.path.exists(text) else (None, Path(text))


def report(options):
    runs = [named_run(text) for text in options.runs]
    kinds = [kind for kind in output.KINDS if getattr(options, kind.option)]
    files = [output.target(getattr(options, kind.option), kind, [path for _, path in runs]) for kind in kinds]
    arms = make_arms([(name, read_run(path)) for name, path in runs], options.baseline)
    drawing = specification(arms, options.title, options.margin)
    output.write(list(zip(files, [kind.draw(drawing) for kind in kinds])))


def main(arguments=None):
    options = parse(arguments)
    try:
        report(options)
    except (ReportError, OSError) as error:
        text = str(error) if isinstance(error, ReportError) or error.filename is None else f"{error.filename}: {error.strerror}"
        print(f"lighthouse-report: {one_line(text)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

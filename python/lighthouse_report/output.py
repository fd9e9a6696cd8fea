"""A specification as files, each complete or absent."""

import fnmatch
import html
import json
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from .errors import ReportError, UsageError

INPUTS = ("config.toml", "metrics.jsonl", "run.json", "eval*.json", "checkpoints")  # of a run folder
BEGIN = 2**16  # bytes that tell what a file is

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<title>{title}</title>
<style>body {{ margin: 0; background: white; }} #page {{ display: table; margin: 0 auto; }}</style>
<script>{library}</script>
</head>
<body>
<main id="page"></main>
<script type="application/json" id="specification">{specification}</script>
<script>vegaEmbed("#page", JSON.parse(document.getElementById("specification").textContent), {{renderer: "svg"}});</script>
</body>
</html>
"""


def vl_convert():
    try:
        import vl_convert as library
    except ModuleNotFoundError as error:
        raise ReportError("vl-convert-python is not installed: pip install 'lighthouse-attention[report]'") from error
    return library


def page(specification):
    """HTML with everything in it: scripts, data, and nothing to load."""
    text = json.dumps(specification, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")  # no name ends the script
    return PAGE.format(title=html.escape(specification["title"]["text"]), library=vl_convert().javascript_bundle(),
                       specification=text).encode()


def svg(specification):
    return drawn("SVG", lambda: vl_convert().vegalite_to_svg(specification)).encode()


def png(specification):
    return drawn("PNG", lambda: vl_convert().vegalite_to_png(specification, scale=2))


def drawn(name, draw):
    try:
        return draw()
    except ValueError as error:
        raise ReportError(f"cannot be drawn as {name}: {error}") from error


@dataclass(frozen=True)
class Kind:
    """A kind of output, with the function that makes its bytes and how one knows an earlier one."""
    option: str
    draw: object
    known: object    # of (path, first bytes)


PAGE_BEGIN = PAGE.partition("{title}")[0].encode()
KINDS = (Kind("output", page, lambda _, begin: begin.startswith(PAGE_BEGIN) and b"#page { display: table;" in begin),
         Kind("svg", svg, lambda _, begin: begin.startswith(b"<svg ") and b' class="marks"' in begin[:1000]),
         Kind("png", png, lambda path, begin: path.suffix.lower() == ".png" and begin.startswith(b"\x89PNG\r\n\x1a\n")))


def target(path, kind, runs):
    """The file that `path` stands for, links followed. Refused where something else than an earlier output would be lost."""
    try:
        mode = os.stat(path).st_mode
    except FileNotFoundError:
        mode = None
    except OSError as error:
        raise ReportError(f"{path}: cannot be written: {error.strerror}") from error
    if mode is not None and stat.S_ISDIR(mode):
        raise UsageError(f"{path}: is a folder; give the name of a file")
    if mode is not None and not stat.S_ISREG(mode):
        raise ReportError(f"{path}: is no regular file, so it is not replaced; give the name of a file")
    file = Path(os.path.realpath(path))
    if not file.parent.is_dir():
        raise ReportError(f"{path}: the folder {file.parent} does not exist; make it first")
    for run in runs:
        if is_input(file, Path(os.path.realpath(run))):
            raise ReportError(f"{path}: is a name for files of the run {run}; give another")
    if mode is not None and not is_earlier(file, kind):
        raise ReportError(f"{path}: is there already and no earlier result of --{kind.option}; give another name, or remove it")
    return file


def is_input(file, run):
    if not file.is_relative_to(run):
        return False
    first = file.relative_to(run).parts[:1]
    return not first or any(fnmatch.fnmatch(first[0], name) for name in INPUTS)


def is_earlier(file, kind):
    """Whether a file is of that kind; an empty one has nothing to lose."""
    with open(file, "rb") as opened:
        begin = opened.read(BEGIN)
    return not begin or kind.known(file, begin)


def write(contents):
    """[(file, bytes)]: all of them or, with an error, nothing: temporary files beside them are renamed."""
    made = []
    try:
        for file, content in contents:
            temporary = file.with_name(f".lighthouse-report.{os.getpid()}.{len(made)}.tmp")
            with open(temporary, "xb") as opened:
                made.append(temporary)
                opened.write(content)
        for temporary, (file, _) in zip(made, contents):
            os.replace(temporary, file)
    except OSError as error:
        raise ReportError(f"{file}: cannot be written: {error.strerror}") from error
    finally:
        for temporary in made:
            temporary.unlink(missing_ok=True)

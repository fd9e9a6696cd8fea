"""A specification as files, each complete or absent."""

import html
import json
import os

from .errors import ReportError

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


def page(specification, title):
    """HTML with everything in it: scripts, data, and nothing to load."""
    text = json.dumps(specification, ensure_ascii=False, allow_nan=False).replace("<", "\\u003c")  # no name ends the script
    return PAGE.format(title=html.escape(title), library=vl_convert().javascript_bundle(), specification=text)


def svg(specification):
    return vl_convert().vegalite_to_svg(specification)


def png(specification):
    return vl_convert().vegalite_to_png(specification, scale=2)


def check_target(path):
    if path.is_dir():
        raise ReportError(f"{path}: is a folder; give the name of a file")
    if not path.parent.is_dir():
        raise ReportError(f"{path}: the folder {path.parent} does not exist; make it first")


def write(path, content):
    """All of it or, with an error, nothing: a temporary file beside it is renamed."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(temporary, path)
    except OSError as error:
        raise ReportError(f"{path}: cannot be written: {error.strerror}") from error
    finally:
        temporary.unlink(missing_ok=True)
